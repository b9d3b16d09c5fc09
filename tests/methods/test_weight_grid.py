from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from paretune.core.errors import BudgetError, ConfigError, RewardError
from paretune.core.preferences import das_dennis
from paretune.core.stages import Stage
from paretune.core.task import Task
from paretune.methods.multi_policy.weight_grid import WeightGrid, WeightGridSettings

WANTED = das_dennis(2, 2)
GRID = WeightGrid(WeightGridSettings(completions_each=100, measured_each=10))


def folds_of(scores: list[list[float]], kl: list[float]) -> list[list[list[float | None]]]:
    """Return four folds on which every member measured the same, and four without a prompt."""
    rows = [[*row, nats] for row, nats in zip(scores, kl, strict=True)]
    return [[[*row] for _ in range(4)] + [[None] * 3 for _ in range(4)] for row in rows]


def planned(task: Task, budget: int) -> tuple[list[Stage], Stage]:
    *experts, measurement = GRID.stages(task, WANTED, budget, 0)
    assert {expert.kind for expert in experts} == {"expert"}
    assert measurement.kind == "measurement"
    assert measurement.needs == tuple(experts)
    return experts, measurement


@pytest.mark.parametrize(
    ("objectives", "budget", "size"),
    [
        (2, 100, 3),  # corners and centre, fewer completions each
        (2, 399, 3),
        (2, 400, 3),  # 3 divisions and the centre are 5 members
        (2, 500, 5),
        (2, 700, 7),  # 6 divisions hold the centre
        (3, 600, 4),
        (3, 700, 7),  # 2 divisions and the centre
        (3, 1000, 10),  # 3 divisions hold the centre
        (4, 100, 5),
    ],
)
def test_the_largest_grid_with_a_centre_that_the_budget_allows_is_trained(
    objectives: int, budget: int, size: int
) -> None:
    grid = GRID.grid(objectives, budget)
    assert len(grid) == size
    assert grid[:objectives].tolist() == np.eye(objectives).tolist()
    assert any(np.allclose(row, 1 / objectives) for row in grid)


def test_a_larger_grid_is_found_beyond_one_that_is_too_large() -> None:
    """5 divisions and the centre are 7 members, 6 divisions hold the centre and are 7 too; 3 and 4 are both 5."""
    assert len(GRID.grid(2, 500)) == 5
    assert GRID.grid(2, 500).tolist() == das_dennis(2, 4).tolist()  # the finer of two grids of one size
    assert GRID.grid(2, 700).tolist() == das_dennis(2, 6).tolist()


@pytest.mark.parametrize("budget", [60, 100, 399, 512, 700, 1003])
def test_measuring_is_charged_and_the_budget_is_left_short_by_less_than_a_group_each(task: Task, budget: int) -> None:
    experts, measurement = planned(task, budget)
    spent = sum(stage.completions for stage in (*experts, measurement))
    assert 0 <= budget - spent < 8 * len(experts)
    asked = min(10, budget // (4 * len(experts)))
    prompts = len(task.splits["development"])
    assert prompts == 4
    even = asked if asked <= 4 else asked // 4 * 4  # every prompt counts equally
    assert measurement.completions == len(experts) * even


def test_preferences_play_no_part_in_what_is_trained(task: Task) -> None:
    one, other = (GRID.stages(task, np.asarray(wanted), 500, 0) for wanted in ([[1.0, 0.0]], [[0.3, 0.7], [0.5, 0.5]]))
    assert one == other


def test_the_member_of_the_highest_measured_utility_answers_whatever_it_was_trained_for(
    task: Task, finish: Any
) -> None:
    stages = GRID.stages(task, WANTED, 300, 0)
    scores = [[0.5, 0.2], [0.1, 0.6], [0.6, 0.5]]  # the centre's member turned out best at the first corner too
    values = {"scores": scores, "kl": [0.5, 0.5, 9.0], "folds": folds_of(scores, [0.5, 0.5, 9.0])}
    assembly = GRID.assemble(task, WANTED, finish(stages, {"measurement": values}))
    weights, answers = assembly.answer.weights(np.asarray([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]))
    assert weights.tolist() == [[0, 0, 1], [0, 0, 1], [0, 1, 0]]
    assert answers == ["selected"] * 3
    assert (assembly.notes["scores"], assembly.notes["kl"]) == (scores, [0.5, 0.5, 9.0])
    judged_task, measured = replace(task, judged_on="J"), finish(stages, {"measurement": values})
    judged = GRID.assemble(judged_task, WANTED, measured)  # beta is 0.1: nine nats cost 0.9
    whatever = WeightGrid(replace(GRID.settings, select="J")).assemble(task, WANTED, measured)
    assert whatever.answer.weights(np.eye(2))[0].tolist() == judged.answer.weights(np.eye(2))[0].tolist()
    assert judged.answer.weights(np.asarray([[1.0, 0.0], [0.0, 1.0]]))[0].tolist() == [[1, 0, 0], [0, 1, 0]]
    assert assembly.notes["objective_weights"] == GRID.grid(2, 300).tolist()


def test_a_member_without_a_score_is_an_error_and_not_a_zero(task: Task, finish: Any) -> None:
    stages = GRID.stages(task, WANTED, 300, 0)
    values = {"measurement": {"scores": [[0.5, None], [0.1, 0.6], [0.6, 0.5]]}}
    with pytest.raises(RewardError, match=r"every member must have a measured score.*got none on 'second'"):
        GRID.assemble(task, WANTED, finish(stages, values))


@pytest.mark.parametrize("budget", [2, 11, 26])
def test_a_budget_too_small_for_corners_and_centre_is_refused(task: Task, budget: int) -> None:
    with pytest.raises(BudgetError, match="budget must"):
        GRID.stages(task, WANTED, budget, 0)


@pytest.mark.parametrize("measured", [0, 92, 100])
def test_measuring_must_leave_a_group_to_train_on(measured: int) -> None:
    with pytest.raises(ConfigError, match=f"leave a group to train on, got {measured} of 100"):
        WeightGridSettings(completions_each=100, measured_each=measured)


def test_all_members_train_in_one_batch(task: Task) -> None:
    experts, _ = planned(task, 999)
    assert len(experts) == 9
    assert len({expert.completions for expert in experts}) == 2  # some have a group more
    assert len({expert.shape_key(task) for expert in experts}) == 1


def test_another_utility_selects_another_member_of_the_same_experts(task: Task, finish: Any) -> None:
    """For equal weights the ends are worth .5 and the compromise .45; it lacks least of what is best."""
    stages = GRID.stages(task, WANTED, 300, 0)
    scores = [[1.0, 0.0], [0.0, 1.0], [0.45, 0.45]]
    values = {"measurement": {"scores": scores, "kl": [0.0] * 3, "folds": folds_of(scores, [0.0] * 3)}}
    chosen, values_of = {}, {}
    for select, points in (("linear", ()), ("chebyshev", ()), ("thresholds", (0.4, 0.4))):
        method = WeightGrid(replace(GRID.settings, select=select, select_point=points))
        assert [stage.key(task) for stage in method.stages(task, WANTED, 300, 0)] == [s.key(task) for s in stages]
        assembly = method.assemble(task, WANTED, finish(stages, values))
        chosen[select] = assembly.answer.weights(np.asarray([[0.5, 0.5]]))[0].argmax()
        values_of[select] = assembly.notes["selection"]
    assert chosen == {"linear": 0, "chebyshev": 2, "thresholds": 2}
    linear: Any = values_of["linear"]
    assert linear["folds"] == 4
    assert linear["naive"] == linear["cross_fitted"] == [1.0, 1.0, 0.5]  # corners, then the centre: no noise


@pytest.mark.parametrize(("select", "point"), [("chebyshev", ()), ("thresholds", (0.9, 95.0))])
def test_a_selection_does_not_change_with_the_unit_of_a_reward(
    task: Task, finish: Any, select: str, point: tuple[float, ...]
) -> None:
    """The second reward in percent: in points the last member lacks 35 or 40 and the second less than 1."""
    first, second = task.objectives
    percent = replace(task, objectives=(first, replace(second, range=(0.0, 100.0), pass_threshold=None)))
    scores = [[1.0, 0.0], [0.0, 100.0], [0.6, 60.0]]
    stages = GRID.stages(percent, WANTED, 300, 0)
    values = {"measurement": {"scores": scores, "kl": [0.0] * 3, "folds": folds_of(scores, [0.0] * 3)}}
    method = WeightGrid(replace(GRID.settings, select=select, select_point=point))
    assembly = method.assemble(percent, WANTED, finish(stages, values))
    assert assembly.answer.weights(np.asarray([[0.5, 0.5]]))[0].argmax() == 2


def test_what_was_lucky_is_reported_with_and_without_its_luck(task: Task, finish: Any) -> None:
    """Two equal members, each good on one fold: whoever is chosen on one is bad on the other."""
    stages = GRID.stages(task, WANTED, 300, 0)
    folds = [[[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0], [1.0, 1.0, 0.0]], [[0.0, 0.0, 0.0]] * 2]
    values = {"scores": [[0.5, 0.5], [0.5, 0.5], [0.0, 0.0]], "kl": [0.0] * 3, "folds": folds}
    notes: Any = GRID.assemble(task, WANTED, finish(stages, {"measurement": values})).notes
    assert notes["selection"]["naive"] == [0.5] * 3
    assert notes["selection"]["cross_fitted"] == [0.0] * 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"select": "luck"}, "select must be one of"),
        ({"select": "thresholds"}, "select_point must be a threshold for each objective"),
        ({"select_point": (0.5, 0.5)}, "select_point must be left out where select is 'linear'"),
    ],
)
def test_a_selection_that_cannot_be_made_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        WeightGridSettings(completions_each=100, measured_each=10, **changes)


def test_points_of_another_number_of_objectives_are_refused(task: Task, finish: Any) -> None:
    stages = GRID.stages(task, WANTED, 300, 0)
    scores = [[1.0, 0.0], [0.0, 1.0], [0.45, 0.45]]
    values = {"measurement": {"scores": scores, "kl": [0.0] * 3, "folds": folds_of(scores, [0.0] * 3)}}
    method = WeightGrid(replace(GRID.settings, select="thresholds", select_point=(0.5,)))
    with pytest.raises(ConfigError, match=r"select_point must have a number for each objective \(2\), got \[0.5\]"):
        method.assemble(task, WANTED, finish(stages, values))
