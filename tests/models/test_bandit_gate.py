"""A gate that answers with the best arm of a bandit: by the formula, for each row alone, and saved as others are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gated import EXPERTS, OBJECTIVES, PROMPTS, ROWS, bank_of, preferences_of, prior_of
from paretune.bandits.arms import MOST_ARMS, arms_of
from paretune.bandits.contexts import Compression, compressed, compression, context_rows
from paretune.bandits.policies import answers
from paretune.bandits.ridge import fresh, predicted, updated
from paretune.core.errors import ConfigError, MixingError
from paretune.core.prompt_format import PromptFormat
from paretune.core.protocols import Mixer
from paretune.models.bandit_gate import BanditGate
from paretune.models.base import BaseModel
from paretune.models.gate import load_gate
from paretune.models.policy import Policy
from paretune.models.prompt_states import prompt_states

SETTINGS: dict[str, Any] = {
    "divisions": 1, "step": 0.5, "stretch": 2.0, "features": 3, "products": 2, "beta": 0.1, "payoff": "rewards",
    "caution": 0.5,
}  # fmt: skip


def gate_of(base: BaseModel, learned: bool = True, **changes: Any) -> BanditGate:
    gate = BanditGate(bank_of(base), OBJECTIVES, 0, {**SETTINGS, **changes})
    if learned:
        states = prompt_states(base, PROMPTS).double().numpy()
        arms, inputs, outputs = gate.networks[0][2].shape
        generator = np.random.default_rng(0)
        pulls, contexts = generator.integers(0, arms, 100), generator.normal(size=(100, inputs))
        paid = predicted(generator.normal(size=(arms, inputs, outputs)), contexts)[np.arange(100), pulls]
        gate.learn(compression(states, 3), updated(fresh(arms, inputs, outputs, 1.0), pulls, contexts, paid))
    return gate


def test_what_has_learned_nothing_is_the_prior(llama: BaseModel) -> None:
    gate = gate_of(llama, learned=False)
    # 32 numbers of a prompt, 3 axes over them, 8 arms, 1 + 3 + 1 + 2 entries of a context, 2 rewards and the KL
    assert gate.flat.shape == (1, 32 + 32 * 3 + 8 * 7 * 3 + 8 * 7 * 7 + 3 * 3)
    assert gate.mixing(prior_of(), preferences_of(), PROMPTS).resolved().dense().equal(prior_of())


@pytest.mark.parametrize("payoff", ["rewards", "utility"])
def test_rows_get_the_arm_of_the_highest_payoff(llama: BaseModel, payoff: str) -> None:
    gate = gate_of(llama, payoff=payoff)
    assert gate.outputs == (3 if payoff == "rewards" else 2)
    mean, axes, theta, inverses, covariance = (each.detach().double().numpy() for each in gate.networks[0])
    states = prompt_states(llama, PROMPTS).double().numpy()
    weights = arms_of(EXPERTS, 1, 0.5, 2.0).weights(prior_of().double().numpy())
    found = gate.mixing(prior_of(), preferences_of(), PROMPTS).resolved().dense()
    chosen = set()
    for row, wanted in enumerate(preferences_of().double().numpy()):
        context = context_rows(compressed(Compression(mean, axes), states[row][None]), wanted[None], 2)
        outputs = predicted(theta, context)[0]  # [A, O]
        counts = np.append(wanted if payoff == "rewards" else 1.0, -0.1)
        errors = [np.sqrt((counts @ covariance @ counts) * (context[0] @ each @ context[0])) for each in inverses]
        best = answers((outputs @ counts)[None], np.asarray(errors)[None], 0.5)[0]
        np.testing.assert_allclose(found[row], weights[row, best], rtol=1e-6)  # fp32
        chosen.add(int(best))
    assert len(chosen) > 2


def test_a_row_does_not_depend_on_those_beside_it(llama: BaseModel) -> None:
    gate = gate_of(llama)
    together = gate.mixing(prior_of(), preferences_of(), PROMPTS).resolved().dense()
    for row in range(ROWS):
        only = slice(row, row + 1)
        alone = gate.mixing(prior_of()[only], preferences_of()[only], PROMPTS[only]).resolved().dense()
        assert alone[0].equal(together[row])


def test_a_blind_gate_reads_the_preference_alone(llama: BaseModel) -> None:
    blind = gate_of(llama, context="blind")
    same = torch.full((2, OBJECTIVES), 0.5)
    rows = blind.mixing(prior_of(2)[:1].repeat(2, 1), same, PROMPTS[:2]).resolved().dense()
    assert rows[0].equal(rows[1])
    assert blind.prompt_passes == 0
    assert gate_of(llama).prompt_passes == 1


def test_a_saved_gate_comes_back_and_serves_a_policy_and_its_scales(llama: BaseModel, tmp_path: Path) -> None:
    gate = gate_of(llama)
    gate.save(tmp_path / "gate.safetensors")
    bank = bank_of(llama)
    loaded = load_gate(bank, tmp_path / "gate.safetensors")
    assert isinstance(loaded, BanditGate)
    assert loaded.digest == gate.digest
    assert loaded.arms.names() == gate.arms.names()
    policy = Policy(
        llama, bank, PromptFormat("{prompt}"), 8, 2, np.eye(2), ["combined"] * 2, np.eye(2, EXPERTS),
        Mixer(gate=tmp_path / "gate.safetensors"), loaded,
    )  # fmt: skip
    scaled = policy.scaled([0.0, 0.5])
    weights = scaled.mixing([0, 1], [(1, 2), (1, 2)]).resolved().dense()
    assert not weights[0].any()
    np.testing.assert_allclose(weights[1], policy.mixing([0], [(1, 2)]).resolved().dense()[0] / 2)


def test_a_saved_gate_may_have_more_arms_than_are_planned_today(llama: BaseModel, tmp_path: Path) -> None:
    gate = gate_of(llama, learned=False, divisions=43)  # 990 points and the rule, twice
    assert len(gate.arms.steps) == 1982 > MOST_ARMS
    gate.save(tmp_path / "gate.safetensors")
    assert load_gate(bank_of(llama), tmp_path / "gate.safetensors").digest == gate.digest


def test_what_does_not_fit_is_refused(llama: BaseModel) -> None:
    with pytest.raises(
        ConfigError, match=r"settings of BanditGate must have .*got none of beta, payoff\. It learns in"
    ):
        BanditGate(bank_of(llama), 2, 0, {key: SETTINGS[key] for key in SETTINGS if key not in ("beta", "payoff")})
    with pytest.raises(ConfigError, match="features must be between 1 and 32, got 40"):
        gate_of(llama, learned=False, features=40)
    with pytest.raises(ConfigError, match=r"products must be at most the number of features \(3\), got 4"):
        gate_of(llama, learned=False, products=4)
    with pytest.raises(MixingError, match="states of prompts must be of size 32"):
        gate_of(llama).row_weights(torch.zeros(1, 31), prior_of(1), preferences_of(1))
