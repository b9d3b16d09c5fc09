from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.core.errors import BudgetError, ConfigError
from paretune.core.preferences import das_dennis
from paretune.core.stages import StageResult
from paretune.core.task import Task
from paretune.methods.experts import expert_stage
from paretune.methods.per_preference import (
    PerPreferenceSettings,
    best_trained,
    planned_policies,
    trained_preferences,
)
from paretune.methods.single_policy.chebyshev import FORMS, Chebyshev, ChebyshevSettings
from paretune.methods.single_policy.thresholds import Thresholds, ThresholdsSettings


@given(objectives=st.integers(1, 4), divisions=st.integers(1, 4), affordable=st.integers(1, 40))
def test_no_more_policies_than_affordable_and_never_one_twice(objectives: int, divisions: int, affordable: int) -> None:
    wanted = das_dennis(objectives, divisions)
    trained = trained_preferences(wanted, affordable)
    assert len(trained) == min(len(wanted), affordable)
    assert len({tuple(row.round(9)) for row in trained}) == len(trained)
    if len(wanted) <= affordable:
        assert trained.tolist() == wanted.tolist()
        return
    ends, middle = np.eye(objectives), np.full((1, objectives), 1 / objectives)
    if affordable < objectives and np.isclose(wanted, middle).all(axis=1).any():  # it serves everybody
        ends = np.concatenate([middle, ends])
    np.testing.assert_allclose(trained[:objectives], ends[: len(trained)][:objectives])


def test_a_policy_is_planned_with_its_preference_and_its_part_of_the_budget() -> None:
    settings = PerPreferenceSettings(completions_each=100)
    planned = planned_policies(settings, np.asarray([[0.9, 0.1], [0.3, 0.7], [0.0, 1.0]]), 250)  # two, a corner first
    assert [(row.tolist(), length) for row, length in planned] == [([0, 1], 128), ([0.9, 0.1], 120)]  # 31 groups of 8


def test_even_a_budget_for_none_trains_one_if_it_holds_a_group() -> None:
    settings = PerPreferenceSettings(completions_each=100)
    assert len(planned_policies(settings, das_dennis(2, 2), 8)) == 1
    with pytest.raises(BudgetError, match="at least one group of 8 completions, got 7"):
        planned_policies(settings, das_dennis(2, 2), 7)


def test_less_than_a_group_for_a_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match="completions_each must be at least one group of 8, got 7"):
        PerPreferenceSettings(completions_each=7)


def estimates(*worth: tuple[list[float | None], float, int]) -> list[dict[str, object]]:
    return [{"returns": returns, "kl": kl, "counted": counted} for returns, kl, counted in worth]


def results_of(task: Task, finish: Any, values: list[dict[str, object]]) -> dict[str, StageResult]:
    wanted = np.asarray([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    made = finish(tuple(expert_stage(PerPreferenceSettings(), row, 512, 0) for row in wanted))
    return {key: replace(each, values=own) for (key, each), own in zip(made.items(), values, strict=True)}


WANTED = np.asarray([[0.9, 0.1], [0.0, 1.0], [0.2, 0.8]])


def test_others_than_the_trained_preferences_get_who_is_estimated_best(task: Task, finish: Any) -> None:
    values = estimates(([0.9, 0.1], 1.0, 512), ([0.1, 0.6], 4.0, 512), ([0.7, 0.5], 0.0, 512))
    assembly = best_trained(task, results_of(task, finish, values))
    weights, words = assembly.answer.weights(WANTED)
    assert (weights.argmax(axis=1).tolist(), words) == ([0, 1, 2], ["estimated", "exact", "estimated"])
    assert assembly.notes == {"estimated_returns": [[0.9, 0.1], [0.1, 0.6], [0.7, 0.5]], "estimated_kl": [1, 4, 0]}
    paid = best_trained(replace(task, judged_on="J", beta=0.3), results_of(task, finish, values))
    assert paid.answer.weights(WANTED)[0].argmax(axis=1).tolist() == [2, 1, 2]  # .82 less .3 is below .68


def test_by_the_utility_that_a_method_trains_for_another_may_be_best(task: Task, finish: Any) -> None:
    """For (.6, .4) a corner is worth .6 and the centre .45; they lack .4 and .33 of the ideal; .4 of both is enough."""
    values = estimates(([1.0, 0.0], 0.0, 512), ([0.0, 1.0], 0.0, 512), ([0.45, 0.45], 0.0, 512))
    results, wanted = results_of(task, finish, values), np.asarray([[0.6, 0.4], [1.0, 0.0]])
    assert best_trained(task, results).answer.weights(wanted)[0].argmax(axis=1).tolist() == [0, 0]
    limits = dict.fromkeys(task.objective_names, 0.4)
    for method in (
        *(Chebyshev(ChebyshevSettings(form=form)) for form in FORMS),
        Thresholds(ThresholdsSettings(level="expected", thresholds=limits)),
    ):
        weights, words = method.assemble(task, wanted, results).answer.weights(wanted)
        assert (weights.argmax(axis=1).tolist(), words) == ([2, 0], ["estimated", "exact"])


def test_mean_returns_do_not_tell_the_utility_of_single_completions(task: Task, finish: Any) -> None:
    values = estimates(([1.0, 0.0], 0.0, 512), ([0.0, 1.0], 0.0, 512), ([0.45, 0.45], 0.0, 512))
    answer = Thresholds(ThresholdsSettings()).assemble(task, WANTED, results_of(task, finish, values)).answer
    assert answer.weights(WANTED)[1] == ["nearest", "exact", "nearest"]


@pytest.mark.parametrize("worth", [([0.1, 0.6], 4.0, 511), ([0.1, None], 4.0, 512)])
def test_where_one_cannot_be_estimated_the_nearest_answers(task: Task, finish: Any, worth: Any) -> None:
    values = estimates(([0.9, 0.1], 1.0, 512), worth, ([0.7, 0.5], 0.0, 512))
    weights, words = best_trained(task, results_of(task, finish, values)).answer.weights(WANTED)
    assert (weights.argmax(axis=1).tolist(), words) == ([0, 1, 1], ["nearest", "exact", "nearest"])
