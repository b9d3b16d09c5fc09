"""A gate that weighs by prompt: rows are those of row weights, whatever reads them, and gradients reach it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gated import EXPERTS, OBJECTIVES, PROMPTS, ROWS, bank_of, keys, preferences_of, prior_of, score
from paretune.core.errors import ConfigError, MixingError, NonFiniteError, ShapeError
from paretune.core.ledger import network_flops
from paretune.core.prompt_format import PromptFormat
from paretune.core.protocols import Mixer
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.decoding import sample
from paretune.models.gate import TrainedGate, load_gate, resolve_gate
from paretune.models.loading import load_base
from paretune.models.mixing import Mixing
from paretune.models.policy import Policy
from paretune.models.prompt_gate import PromptGate
from paretune.models.prompt_states import prompt_states
from paretune.models.scoring import completion_log_probs
from paretune.models.tree import tree_log_probs
from reader_oracle import CLOSE

LETTERS = range(1, 8)


def gate_of(bank: ExpertBank, trained: bool = True, seed: int = 0) -> PromptGate:
    gate = PromptGate(bank, OBJECTIVES, seed, {"width": 5})
    if trained:
        gate.flat.add_(torch.randn(gate.flat.shape, generator=torch.Generator().manual_seed(seed)) * 0.3)
    return gate


def mixing_of(gate: TrainedGate, scale: Tensor | None = None) -> Mixing:
    return gate.mixing(prior_of(), preferences_of(), PROMPTS, scale)


def by_formula(base: BaseModel, gate: PromptGate) -> Tensor:
    """Return g of each row, of torch's own modules on one concatenated input."""
    network = nn.Sequential(nn.Linear(32 + OBJECTIVES, 5), nn.SiLU(), nn.Linear(5, EXPERTS))
    with torch.no_grad():
        for own, given in zip(network.parameters(), gate.networks[0], strict=True):
            own.copy_(given)
        made: Tensor = prior_of() + network(torch.cat([prompt_states(base, PROMPTS), preferences_of()], dim=1))
    return made


def test_a_gate_is_one_network_over_twice_the_states(llama: BaseModel) -> None:
    gate = gate_of(bank_of(llama), trained=False)
    # 5 units over 2 * 16 numbers of the prompt and 2 objectives, a last layer of 3 experts over 5 units
    assert gate.flat.shape == (1, 5 * 34 + 5 + 3 * 5 + 3)
    assert mixing_of(gate).resolved().dense().equal(prior_of())


@torch.no_grad()
def test_rows_are_those_of_the_weights_that_the_formula_gives(any_base: BaseModel) -> None:
    bank = bank_of(any_base)
    gate = gate_of(bank)
    scale = torch.linspace(0.5, 1.5, ROWS)
    weights = by_formula(any_base, gate)
    assert (weights - prior_of()).abs().max() > 0.1
    for gated, plain in (
        (mixing_of(gate), Mixing.of_rows(weights)),
        (mixing_of(gate, scale), Mixing.of_rows(weights * scale[:, None])),
    ):
        for share in (True, False):
            torch.testing.assert_close(score(bank, gated, share), score(bank, plain), rtol=0, atol=CLOSE)
        rollout = sample(any_base, bank, PROMPTS, gated, keys(), 6)
        other = sample(any_base, bank, PROMPTS, plain, keys(), 6, share_prefill=False)
        assert rollout.token_ids.equal(other.token_ids)
        scored = completion_log_probs(any_base, bank, gated, PROMPTS, rollout.token_ids, rollout.lengths)
        torch.testing.assert_close(rollout.log_probs, scored, rtol=0, atol=CLOSE)
        if any_base.full_attention and any_base.takes_positions:
            trees = [tree_log_probs(any_base, bank, mixing, PROMPTS, LETTERS, 2) for mixing in (gated, plain)]
            torch.testing.assert_close(*trees, rtol=0, atol=CLOSE)


@torch.no_grad()
def test_rows_alike_are_asked_for_once_and_share_their_prompt(llama: BaseModel) -> None:
    asked: list[int] = []

    class Counting(PromptGate):
        def row_weights(self, context: Tensor, prior: Tensor, preferences: Tensor) -> Tensor:
            asked.append(len(context))
            return super().row_weights(context, prior, preferences)

    gate = Counting(bank_of(llama), OBJECTIVES, 0)
    gate.flat.normal_(generator=torch.Generator().manual_seed(1))
    preferences = torch.tensor([[0.5, 0.5]]).expand(ROWS, 2)
    mixing = gate.mixing(prior_of(1).expand(ROWS, 3), preferences, PROMPTS).resolved()
    assert asked == [4]  # prompts of one prior and preference
    assert len(set(mixing.group_keys())) == 4
    assert mixing.resolved() is mixing
    some = gate.mixing(prior_of(), preferences_of(), PROMPTS).rows(torch.tensor([4, 1]))
    torch.testing.assert_close(some.resolved().dense(), mixing_of(gate).resolved().dense()[[4, 1]])


@pytest.mark.parametrize("share", [True, False])
def test_gradients_reach_the_gate_through_row_weights(folders: dict[str, Path], share: bool) -> None:
    """Central differences of a weighted sum of log-probabilities along random directions, in fp64."""
    base = load_base(str(folders["llama"]), device="cpu", dtype=torch.float64)
    bank = bank_of(base)
    gate = gate_of(bank)
    weights = torch.arange(1, ROWS + 1)
    scale = torch.linspace(0.5, 1.5, ROWS)

    def total() -> Tensor:
        return (score(bank, mixing_of(gate, scale), share).double().sum(dim=1) * weights).sum()

    total().backward()
    gradient, largest = gate.take_gradients(), 0.0
    assert bank.take_gradients().any()
    random = torch.Generator().manual_seed(2)
    for _ in range(5):
        start, step = gate.flat.clone(), 2e-4 * torch.randn(gate.flat.shape, generator=random)
        values = []
        for sign in (1, -1):
            gate.flat.copy_(start + sign * step)
            with torch.no_grad():
                values.append(float(total()))
        gate.flat.copy_(start)
        expected = float((2 * step.double() * gradient.double()).sum())
        largest = max(largest, abs(expected))
        # the third derivative adds a part in about 1e-4; log-probs rounded to fp32 are 5e-7 apart, 18 of them 1e-5
        assert values[0] - values[1] == pytest.approx(expected, rel=2e-3, abs=3e-5)
    assert largest > 0.01
    bank.unwrap()


def test_a_saved_gate_comes_back_and_one_for_another_level_is_none(llama: BaseModel, tmp_path: Path) -> None:
    bank = bank_of(llama)
    gate = gate_of(bank)
    gate.save(tmp_path / "gate.safetensors")
    again = load_gate(bank, tmp_path / "gate.safetensors")
    assert type(again) is PromptGate
    assert (again.digest, again.level) == (gate.digest, "prompt")
    with torch.no_grad():
        assert score(bank, mixing_of(again)).equal(score(bank, mixing_of(gate)))
    assert resolve_gate("paretune.models.prompt_gate:PromptGate") is PromptGate


def test_what_does_not_fit_is_refused(llama: BaseModel) -> None:
    bank = bank_of(llama)
    gate = gate_of(bank)
    for prompts, got in ((None, "none"), (PROMPTS[:3], "3")):
        with pytest.raises(ShapeError, match=f"one for each of the 8 rows that PromptGate weighs, got {got}"):
            gate.mixing(prior_of(), preferences_of(), prompts)
    with pytest.raises(ShapeError, match=r"context must be finite and \[8, D\].* got shape \[7, 32\]"):
        Mixing.by_prompt(prior_of(), gate, preferences_of(), prompt_states(llama, PROMPTS)[:7])
    with pytest.raises(MixingError, match="gate is still to choose"), bank.using(mixing_of(gate)):
        pass
    with pytest.raises(MixingError, match="must be of size 32, which the gate reads, got 5"):
        Mixing.by_prompt(prior_of(), gate, preferences_of(), torch.ones(ROWS, 5)).resolved()
    gate.flat.fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="weights of PromptGate must be finite"):
        score(bank, mixing_of(gate))

    class Wide(PromptGate):
        answer: Any = None

        def row_weights(self, context: Tensor, prior: Tensor, preferences: Tensor) -> Any:
            return self.answer

    wide = Wide(bank, OBJECTIVES, 0)
    for wide.answer, got in ((None, "None"), (torch.zeros(2, 3), r"shape \[2, 3\]")):
        with pytest.raises(ShapeError, match=rf"row_weights of Wide must return .* \[8, 3\], \[B, E\], got {got}"):
            mixing_of(wide).resolved()


class Silent(TrainedGate):
    level = "prompt"

    def shapes(self) -> Any:
        return ((1,),)


def test_a_gate_without_row_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"must be a class with shapes, row_weights of its own, got one without row_"):
        resolve_gate(f"{__name__}:Silent")


@torch.no_grad()
def test_a_policy_answers_each_prompt_with_its_own_weights(llama: BaseModel, tmp_path: Path) -> None:
    bank = bank_of(llama)
    gate = gate_of(bank)
    gate.save(tmp_path / "gate.safetensors")
    preferences, weights = np.array([[1.0, 0.0], [0.25, 0.75]]), np.array([[0.2, 0.5, 0.3], [0.2, 0.5, 0.3]])
    policy = Policy(
        llama, bank, PromptFormat(), 4, 3, preferences, ["combined"] * 2, weights,
        Mixer(gate=tmp_path / "gate.safetensors"), gate,
    )  # fmt: skip
    prompts, index = ["b b", "e", "b b"], [0, 0, 1]
    ids = policy.encode(prompts)
    own = torch.tensor(weights[index], dtype=torch.float32)
    asked = torch.tensor(preferences[index], dtype=torch.float32)
    chosen = gate.row_weights(prompt_states(llama, ids), own, asked)
    assert len({tuple(row) for row in chosen.tolist()}) == 3
    torch.testing.assert_close(policy.mixing(index, ids).resolved().dense(), chosen)
    plain = Policy(llama, bank, PromptFormat(), 4, 3, preferences[index], ["mine"] * 3, chosen.double().numpy())
    torch.testing.assert_close(
        policy.completion_table(prompts, LETTERS, 2, index), plain.completion_table(prompts, LETTERS, 2, [0, 1, 2]),
        rtol=0, atol=CLOSE,
    )  # fmt: skip
    torch.testing.assert_close(
        policy.next_token_log_probs(prompts, [[], [1], [2, 3]], index),
        plain.next_token_log_probs(prompts, [[], [1], [2, 3]], [0, 1, 2]), rtol=0, atol=CLOSE,
    )  # fmt: skip
    made = policy.generate(prompts, index, samples=2, seed=3)
    torch.testing.assert_close(policy.log_probs(made), made.log_probs, rtol=0, atol=CLOSE)
    # a gate reads the preference: equal weights of the prior are not one policy; at scale 0 all are the base model
    assert policy.identity(0) != policy.identity(1)
    scaled = policy.scaled([0.0, 0.5])
    assert scaled.identity(0) == scaled.identity(2)
    torch.testing.assert_close(
        scaled.mixing([1, 1, 3], ids).resolved().dense(), policy.mixing(index, ids).resolved().dense() / 2
    )
    # all experts over 10 tokens, the base model over the same for the KL, and over the prompts' 4 for the gate
    read = llama.parameters + 3 * bank.parameters_each()
    assert policy.flops([0], 10, 1, prompt_tokens=4) == network_flops(read, 10, 1) + network_flops(
        llama.parameters, 14, 1
    )
