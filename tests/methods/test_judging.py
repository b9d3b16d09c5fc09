from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.core.errors import NonFiniteError, ShapeError, UnknownNameError
from paretune.core.task import Task
from paretune.methods.judging import judged_scores
from paretune.tasks import load_task

SCORES, KL = np.asarray([[0.8, 0.2], [0.5, 0.75]]), np.asarray([2.0, 0.5])


def test_what_a_nat_costs_is_taken_off_where_the_task_is_judged_on_j(task: Task) -> None:
    assert (task.judged_on, task.beta) == ("utility", 0.1)  # the default of a user's task
    assert judged_scores(task, SCORES, KL) is SCORES
    found = judged_scores(replace(task, judged_on="J"), SCORES, KL)
    np.testing.assert_allclose(found, [[0.6, 0.0], [0.45, 0.7]], atol=1e-12)  # less .2 and .05


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_a_preference_times_judged_scores_is_j(seed: int, objectives: int) -> None:
    draws = np.random.default_rng(seed)
    scores, kl, preference = draws.random((5, objectives)), draws.random(5), draws.dirichlet(np.ones(objectives))
    task: Any = SimpleNamespace(judged_on="J", beta=0.3)
    judged = judged_scores(task, scores, kl)
    np.testing.assert_allclose(judged @ preference, scores @ preference - 0.3 * kl, atol=1e-12)


def test_missing_scores_stay_missing(task: Task) -> None:
    found = judged_scores(replace(task, judged_on="J"), np.asarray([[np.nan, 0.5]]), np.asarray([1.0]))
    assert np.isnan(found[0, 0])
    assert found[0, 1] == pytest.approx(0.4)


@pytest.mark.parametrize("none", [np.nan, np.inf])
def test_a_kl_that_nobody_knows_is_no_j(task: Task, none: float) -> None:
    """Of a policy of several particles, or of one that diverged: the refusal names both, and what to do about each."""
    unknown = np.asarray([2.0, none])
    with pytest.raises(
        NonFiniteError,
        match=r"kl must be finite where the task is judged on J, got NaN or infinity\. Where training diverged, so "
        r"that log-probabilities are NaN, try a lower learning_rate\. A policy of several particles has no KL ",
    ):
        judged_scores(replace(task, judged_on="J"), SCORES, unknown)
    assert judged_scores(task, SCORES, unknown) is SCORES
    nothing = np.asarray([[0.8, 0.2], [np.nan, np.nan]])  # neither scores nor KL: there was nothing to measure
    assert np.isnan(judged_scores(replace(task, judged_on="J"), nothing, unknown)[1]).all()


def test_a_kl_for_each_candidate_is_needed(task: Task) -> None:
    with pytest.raises(ShapeError, match=r"one entry for each row of scores \[2, 2\], got shape \[1\]"):
        judged_scores(task, SCORES, KL[:1])


def test_a_task_is_judged_on_one_of_two(task: Task) -> None:
    with pytest.raises(UnknownNameError, match=r"judged_on of task .* must be one of J, utility, got 'j'"):
        replace(task, judged_on="j")  # type: ignore[arg-type]  # on purpose


def test_controlled_tasks_are_judged_on_j_and_counselling_on_utility() -> None:
    assert load_task("controlled").judged_on == load_task("controlled").instance(3).judged_on == "J"
    assert load_task("counselling").judged_on == "utility"
