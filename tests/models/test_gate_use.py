from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gated
from paretune.core.errors import MixingError
from paretune.core.prompt_format import PromptFormat
from paretune.core.protocols import Mixer
from paretune.models import gate_use as module
from paretune.models.base import BaseModel
from paretune.models.gate import TrainedGate
from paretune.models.gate_use import gate_weights
from paretune.models.policy import Policy
from paretune.models.prompt_gate import PromptGate
from paretune.models.token_gate import TokenGate

PROMPTS = ["a b c", "d", "e f"]
PRIOR = np.array([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]])
CLOSE = 1e-6  # fp32 hidden states of passes of other widths, through a gate with parameters of about .3


def trained(gate: TrainedGate, seed: int = 3) -> TrainedGate:
    gate.flat.add_(torch.randn(gate.flat.shape, generator=torch.Generator().manual_seed(seed)) * 0.3)
    return gate


def policy_of(base: BaseModel, make: type[TrainedGate] | None, **settings: Any) -> Policy:
    bank = gated.bank_of(base)
    gate = None if make is None else trained(make(bank, 2, 0, {"width": 5, **settings}))
    mixer = Mixer() if gate is None else Mixer(gate=Path("gate.safetensors"))
    wanted = np.array([[0.5, 0.5], [1.0, 0.0]])
    return Policy(base, bank, PromptFormat(), 4, 6, wanted, ["mine"] * 2, PRIOR, mixer, gate)


def block_inputs(policy: Policy, prompt: tuple[int, ...], ids: tuple[int, ...], weights: Any) -> list[torch.Tensor]:
    """Return the input of every block at each completion token's place, read alone under given weights [T, L, E]."""
    found: list[torch.Tensor] = []
    assert policy.bank is not None
    hooks = [
        block.register_forward_pre_hook(
            lambda module, args, kwargs: found.append((args[0] if args else kwargs["hidden_states"])[0]),
            with_kwargs=True,
        )
        for block in policy.bank.blocks
    ]
    owner = [0]
    with torch.no_grad(), policy.bank.using(policy.mixing(owner, [prompt]), len(prompt) - 1):
        policy.base.model(torch.tensor([[*prompt, *ids]]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return [each[len(prompt) - 1 : len(prompt) - 1 + len(ids)] for each in found]


def test_weights_are_what_the_gate_says_of_each_blocks_input(llama: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of(llama, gated.BlockGate)
    made = policy.generate(PROMPTS, [0, 0, 0], samples=4, seed=1)
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 5)
    found = gate_weights(policy, made)
    assert found.shape == (12, made.token_ids.shape[1], 2, 3)
    gate: Any = policy.gate
    for row in range(12):
        ids = made.ids(row)
        assert np.isnan(found[row, len(ids) :]).all()
        states = block_inputs(policy, made.prompt_ids[row], ids, None)
        for block, hidden in enumerate(states):
            said = gate.weights(block, hidden[None], torch.tensor(PRIOR[:1]).float(), torch.tensor([[0.5, 0.5]]))[0]
            np.testing.assert_allclose(found[row, : len(ids), block], said.detach(), atol=CLOSE)
    assert np.nanstd(found[:, :, 0, 0]) > 0.01  # tokens differ


def test_a_gate_of_tokens_leaves_blocks_before_its_own_under_the_prior(llama: BaseModel) -> None:
    policy = policy_of(llama, TokenGate, gate_block=1)
    found = gate_weights(policy, policy.generate(PROMPTS, [0, 0, 1], samples=2, seed=1))
    first = found[:, 0, 0]
    np.testing.assert_allclose(first[:4], np.tile(PRIOR[0], (4, 1)), atol=CLOSE)
    np.testing.assert_allclose(first[4:], np.tile(PRIOR[1], (2, 1)), atol=CLOSE)
    assert np.abs(found[:, 0, 1] - first).max() > 0.01


def test_a_gate_of_prompts_weighs_every_token_and_block_alike(llama: BaseModel) -> None:
    policy = policy_of(llama, PromptGate)
    made = policy.generate(PROMPTS, [0, 0, 1], samples=2, seed=1)
    found = gate_weights(policy, made)
    rows = policy.mixing([owner for owner, _, _ in made.row_ids], made.prompt_ids).resolved().dense().detach().numpy()
    for row in range(6):
        length = len(made.ids(row))
        np.testing.assert_allclose(found[row, :length], np.broadcast_to(rows[row], (length, 2, 3)), atol=CLOSE)
    assert np.abs(rows[0] - rows[2]).max() > 0.01


def test_what_a_gate_selects_is_what_is_told(llama: BaseModel) -> None:
    policy = policy_of(llama, gated.BlockGate, top_1=True)
    found = gate_weights(policy, policy.generate(PROMPTS, [0, 0, 0], seed=1))
    assert ((found[np.isfinite(found).all(axis=3)] != 0).sum(axis=1) == 1).all()


def test_a_policy_without_a_gate_has_no_weights_of_one(llama: BaseModel) -> None:
    policy = policy_of(llama, None)
    with pytest.raises(MixingError, match=r"policy must have a gate to tell its weights, got none\. Its experts are"):
        gate_weights(policy, policy.generate(PROMPTS, [0, 0, 0]))
