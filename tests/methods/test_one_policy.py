from __future__ import annotations

from typing import Any

import pytest

from paretune.core.errors import BudgetError
from paretune.core.preferences import corners, das_dennis
from paretune.core.task import Task
from paretune.methods.experts import ExpertSettings
from paretune.methods.single_policy.linear import Linear, LinearSettings
from paretune.methods.single_policy.one_policy import OnePolicy

ONE = OnePolicy(ExpertSettings())


def test_one_policy_for_equal_weights_gets_all_of_the_budget(task: Task) -> None:
    (stage,) = ONE.stages(task, corners(2), 1003, 4)  # equal weights are none of those wanted
    assert (stage.member["objective_weights"], stage.completions, stage.seed) == ([0.5, 0.5], 1000, 4)
    assert ONE.stages(task, das_dennis(2, 10), 1003, 4) == (stage,)


def test_its_training_is_shared_with_linear_where_both_are_equal(task: Task) -> None:
    (alone,) = ONE.stages(task, das_dennis(2, 2), 1000, 4)
    *_, last = Linear(LinearSettings(completions_each=1000)).stages(task, das_dennis(2, 2), 3000, 4)
    assert last.key(task) == alone.key(task)


def test_it_answers_every_preference_alike(task: Task, finish: Any) -> None:
    stages = ONE.stages(task, das_dennis(2, 2), 1000, 4)
    weights, answers = ONE.assemble(task, das_dennis(2, 2), finish(stages)).answer.weights(das_dennis(2, 2))
    assert (weights.tolist(), answers) == ([[1.0]] * 3, ["nearest", "nearest", "exact"])


def test_less_than_a_group_is_refused(task: Task) -> None:
    with pytest.raises(BudgetError, match="at least one group of 8 completions, got 7 for all of them"):
        ONE.stages(task, das_dennis(2, 2), 7, 0)
