from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

import paretune
from paretune.core.errors import ConfigError, TaskError
from paretune.core.task import Task
from paretune.methods.experts import ExpertSettings
from paretune.methods.meta_policy.lower_level.split_experts import SplitExperts
from paretune.methods.prompt_halves import above, trained_prompts

SETTINGS = ExpertSettings(rank=2, completions_per_update=16, group_size=4)


@pytest.fixture(scope="module")
def numbered(task: Task) -> Task:
    """The micro-task, whose prompts have a number: -1, 0, 1, 2, and again."""
    splits: Any = {
        split: tuple({**row, "number": index % 4 - 1} for index, row in enumerate(rows))
        for split, rows in task.splits.items()
    }
    return replace(task, splits=splits)


def test_each_objective_has_an_expert_of_either_half(numbered: Task) -> None:
    stages = SplitExperts("number").stages(SETTINGS, numbered, 400, 0)
    assert [stage.member["objective_weights"] for stage in stages] == [[1, 0], [1, 0], [0, 1], [0, 1]]
    assert [trained_prompts(numbered, stage.member) for stage in stages] == [
        (0, 4),
        (1, 2, 3, 5, 6, 7),
    ] * 2  # 0 is above
    moved = SplitExperts("number", threshold=1).stages(SETTINGS, numbered, 400, 0)
    assert [trained_prompts(numbered, stage.member) for stage in moved] == [(0, 1, 4, 5), (2, 3, 6, 7)] * 2
    assert len({stage.key(numbered) for stage in (*stages, *moved)}) == 8
    assert len({stage.shape_key(numbered) for stage in (*stages, *moved)}) == 1  # one population
    assert trained_prompts(numbered, {"objective_weights": [1, 0]}) is None


def test_the_prior_weighs_both_experts_of_an_objective_alike_and_the_one_by_half_only_its_own() -> None:
    wanted = np.asarray([0.3, 0.7])
    assert_allclose(wanted @ SplitExperts().prior(2), [0.15, 0.15, 0.35, 0.35])
    below, over = SplitExperts().prior_by_half(2)
    assert_allclose(wanted @ below, [0.3, 0, 0.7, 0])
    assert_allclose(wanted @ over, [0, 0.3, 0, 0.7])
    assert_allclose((below + over) / 2, SplitExperts().prior(2))


def test_an_expert_sees_prompts_of_its_own_half_alone(numbered: Task) -> None:
    from paretune.objectives.scoring import Scorer

    heard: list[list[str]] = []
    scored = Scorer.__call__

    def listening(self: Any, rows: Any, texts: Any) -> Any:
        heard.append([str(row["number"]) for row in rows])
        return scored(self, rows, texts)

    patch = pytest.MonkeyPatch()
    patch.setattr(Scorer, "__call__", listening)
    try:
        given = {"experts": {"kind": "split_experts", "split_by": "number", "threshold": 1}}
        sizes = {"rank": 2, "completions_per_update": 16, "group_size": 4, "epochs": 1}
        solutions = paretune.train("rewarded_soups", numbered, 4 * 32, 0, settings={**given, **sizes})
    finally:
        patch.undo()
    assert len(solutions.experts) == 4
    for rows in heard:  # an update of the population: 16 completions of each expert, one expert after the other
        halves = [set(own) for own in np.reshape(rows, (4, 16)).tolist()]
        assert sorted(halves, key=min) == [{"-1", "0"}] * 2 + [{"1", "2"}] * 2
    assert len(heard) == 2
    weights = solutions.policy_for([0.5, 0.5]).expert_weights
    assert_allclose(weights, [[0.25] * 4])


def test_a_controlled_task_is_split_by_its_own_feature() -> None:
    from paretune.tasks import load_task

    task = load_task({"controlled": {"rho": 0.0, "heterogeneity": 0.5, "alphabet": 4, "length": 3}})
    rows = task.splits["train"]
    feature = task.split_feature(rows)
    assert abs(feature.mean()) < 1e-12
    assert feature.std() == pytest.approx(1)
    assert feature.shape == (16,)
    upper = above(task, rows)
    assert upper.tolist() == (feature >= 0).tolist()
    assert 0 < upper.sum() < 16
    other = task.instance(1)
    assert not np.array_equal(other.split_feature(other.splits["train"]), feature)
    halves = [trained_prompts(task, stage.member) for stage in SplitExperts().stages(SETTINGS, task, 400, 0)[:2]]
    assert sorted([*(halves[0] or ()), *(halves[1] or ())]) == list(range(16))
    assert task.split_feature([{"prompt_id": "0", "n": 2}], "n").tolist() == [2]


def test_prompts_that_cannot_be_split_are_refused_when_planned(task: Task, numbered: Task) -> None:
    with pytest.raises(TaskError, match=r"split_by must name a column of numbers, .* It has the columns prompt"):
        SplitExperts().stages(SETTINGS, task, 400, 0)
    with pytest.raises(TaskError, match=r"column 'prompt' of the prompts of task .* must hold a finite number"):
        SplitExperts("prompt").stages(SETTINGS, task, 400, 0)
    with pytest.raises(TaskError, match="got no such column"):
        SplitExperts("score").stages(SETTINGS, task, 400, 0)
    with pytest.raises(TaskError, match="must have a prompt, got none below -1 in column 'number'"):
        SplitExperts("number", threshold=-1).stages(SETTINGS, numbered, 400, 0)
    with pytest.raises(TaskError, match="got none above 3 in column 'number'"):
        SplitExperts("number", threshold=3).stages(SETTINGS, numbered, 400, 0)
    with pytest.raises(ConfigError, match="threshold must be finite, got inf"):
        SplitExperts(threshold=float("inf"))
