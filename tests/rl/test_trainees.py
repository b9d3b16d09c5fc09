from __future__ import annotations

import numpy as np
import pytest

from gated import OBJECTIVES, bank_of
from paretune.core.errors import ConfigError, ShapeError
from paretune.core.ledger import Ledger
from paretune.models.base import BaseModel
from paretune.models.gate import BlockGate
from paretune.rl.trainees import Conditioned


def test_a_policy_of_which_nothing_could_learn_is_refused(base: BaseModel) -> None:
    bank = bank_of(base, 2)
    gate = BlockGate(bank, OBJECTIVES, 0)
    with pytest.raises(ConfigError, match=r"trains must be one of both, experts, gate, got 'gates'\. Did you mean"):
        Conditioned(bank, gate, np.eye(2), 0, (8,), Ledger(8), trains="gates")
    with pytest.raises(ConfigError, match="trains must not be 'gate' without a gate, got none"):
        Conditioned(bank, None, np.eye(2), 0, (8,), Ledger(8), trains="gate")
    with pytest.raises(ShapeError, match=r"prior must be \[K, E\] for the 2 experts, got shape \[2, 3\]"):
        Conditioned(bank, gate, np.ones((2, 3)), 0, (8,), Ledger(8))


def test_a_draw_beside_the_one_preference_of_all_prompts_is_refused(base: BaseModel) -> None:
    bank, one = bank_of(base, 2), np.array([0.25, 0.75])
    policy = Conditioned(bank, None, np.eye(2), 0, (8,), Ledger(8), preference=one)
    assert policy.preferences(0, 3, 2).tolist() == [[0.25, 0.75]] * 2
    with pytest.raises(ConfigError, match=r"draw must be left out where all prompts .*, got 'stratified'\. Remove it"):
        Conditioned(bank, None, np.eye(2), 0, (8,), Ledger(8), draw="stratified", preference=one)


@pytest.mark.parametrize(("trains", "learns"), [("both", ["bank", "gate"]), ("gate", ["gate"]), ("experts", ["bank"])])
def test_what_does_not_learn_is_in_no_optimiser_and_has_no_gradient(
    base: BaseModel, trains: str, learns: list[str]
) -> None:
    bank = bank_of(base, 2)
    gate = BlockGate(bank, OBJECTIVES, 0)
    policy = Conditioned(bank, gate, np.eye(2), 0, (8,), Ledger(8), trains=trains)
    assert list(policy.parameters) == list(policy.take_gradients([0])) == learns
    assert all(each.requires_grad == ("bank" in learns) for each in bank.expert_parameters())
    assert all(each.requires_grad == ("gate" in learns) for each in gate.parameters())
