from __future__ import annotations

import numpy as np
import pytest

from paretune.core.errors import ConfigError, ShapeError
from paretune.core.ledger import Ledger
from paretune.core.task import Task
from paretune.methods.training import environment
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.rl.merging import MergingLearner
from paretune.rl.settings import LearnerSettings
from paretune.rl.trainees import Member, Population

SETTINGS = LearnerSettings(group_size=4, completions_per_update=16)


def make(
    task: Task, base: BaseModel, merge_every: int = 1, second: tuple[int, ...] = (32, 64), alpha: float = 4.0
) -> MergingLearner:
    bank = ExpertBank(base, 2, rank=2, alpha=4.0)
    bank.alphas[1] = alpha
    members = [Member(row, 0, own, Ledger()) for row, own in zip(np.eye(2), ((32, 64), second), strict=True)]
    return MergingLearner(Population(bank, members), environment(base, task), SETTINGS, merge_every)


def test_experts_that_cannot_become_one_average_are_refused(task: Task, base: BaseModel) -> None:
    assert make(task, base).merge_every == 1
    with pytest.raises(ShapeError, match=r"with equal lengths, got \[\(32,\), \(32, 64\)\]\. Train the others"):
        make(task, base, second=(32,))
    with pytest.raises(ShapeError, match=r"with equal alphas, got \[2\.0, 4\.0\]"):
        make(task, base, alpha=2.0)


def test_a_round_without_an_update_is_refused(task: Task, base: BaseModel) -> None:
    with pytest.raises(ConfigError, match=r"merge_every must be at least 1 update, got 0\. Try 8"):
        make(task, base, merge_every=0)
