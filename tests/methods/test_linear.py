from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from paretune.core.errors import BudgetError, ConfigError
from paretune.core.preferences import corners, das_dennis, grid_preferences
from paretune.core.task import Objective, Task
from paretune.methods.single_policy.linear import Linear, LinearSettings

THIRD = 1 / 3


def of_three(task: Task) -> Task:
    third = Objective("third", "m:third")
    return replace(task, objectives=(*task.objectives, third), reference_point=(0.0,) * 3)


def trained(task: Task, wanted: np.ndarray, budget: int) -> list[list[float]]:
    stages = Linear(LinearSettings(completions_each=100)).stages(task, wanted, budget, 0)
    assert sum(stage.completions for stage in stages) <= budget
    return [stage.member["objective_weights"] for stage in stages]  # type: ignore[misc]  # a list by construction


def test_every_wanted_preference_gets_its_policy_where_the_budget_allows(task: Task) -> None:
    wanted = np.asarray([[0.2, 0.8], [0.9, 0.1], [0.5, 0.5]])
    assert trained(task, wanted, 300) == wanted.tolist()
    assert trained(task, wanted, 5000) == wanted.tolist()


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (99, [[0.5, 0.5]]),
        (100, [[0.5, 0.5]]),
        (200, [[1, 0], [0, 1]]),
        (399, [[1, 0], [0, 1], [0.5, 0.5]]),
        (400, [[1, 0], [0, 1], [0.5, 0.5], [0.75, 0.25]]),
        (500, das_dennis(2, 4).tolist()),
    ],
)
def test_corners_and_centre_come_first_where_the_budget_is_small(
    task: Task, budget: int, expected: list[list[float]]
) -> None:
    assert trained(task, das_dennis(2, 4), budget) == expected


def test_three_objectives_put_three_corners_and_the_centre_first(task: Task) -> None:
    wanted = grid_preferences(3, 2)
    first = [*corners(3).tolist(), [THIRD] * 3]
    assert trained(of_three(task), wanted, 450) == first
    assert trained(of_three(task), wanted, 500) == [*first, [0.5, 0.5, 0]]
    assert trained(of_three(task), wanted, 700) == wanted.tolist()  # all that is wanted, as given


def test_a_budget_is_split_evenly_and_left_short_by_less_than_a_group(task: Task) -> None:
    stages = Linear(LinearSettings(completions_each=100)).stages(task, das_dennis(2, 2), 350, 0)
    assert [stage.completions for stage in stages] == [120, 112, 112]


def test_the_policy_of_the_nearest_preference_answers(task: Task, finish: Any) -> None:
    method = Linear(LinearSettings(completions_each=100))
    wanted = das_dennis(2, 2)
    assembly = method.assemble(task, wanted, finish(method.stages(task, wanted, 300, 0)))
    weights, answers = assembly.answer.weights(np.asarray([[0.5, 0.5], [0.9, 0.1]]))
    assert weights.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert answers == ["exact", "nearest"]
    assert [expert.name for expert in assembly.experts] == ["adapter"] * 3
    assert cast(Any, assembly.answer).trained.tolist() == wanted.tolist()


def test_a_budget_below_one_group_is_refused(task: Task) -> None:
    with pytest.raises(
        BudgetError, match=r"at least one group of 8 completions, got 7 for all of them\. Raise it by at least 1\."
    ):
        Linear(LinearSettings()).stages(task, das_dennis(2, 2), 7, 0)


def test_less_than_a_group_for_a_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match="completions_each must be at least one group of 8, got 7"):
        LinearSettings(completions_each=7)
