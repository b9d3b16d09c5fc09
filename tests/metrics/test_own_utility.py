from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from builders import cell, evaluation, outcomes, study, synthetic_study, task_info, truth
from paretune.core.protocols import MetricValue
from paretune.metrics.own_utility import OwnUtility
from paretune.records.outcomes import TruthRecord

BETA = 0.1
INFO = task_info(
    preferences=[[0.5, 0.5]], unseen=[False], objectives=("reflection", "empathy"), audit=(), listed=True,
    thresholds=(0.4, 0.4),
)  # fmt: skip
# base (.2, .2); the front is the line from (.9, .1) to (.1, .9)
TRUTH = truth([[0.2, 0.2]], [[[1.0, 0.2]]], [[1.0]], [[0.5, 0.5]], BETA, front_scores=[[0.9, 0.1], [0.1, 0.9]])


def shares(first: float, second: float, known: TruthRecord = TRUTH) -> dict[str, MetricValue]:
    """Measure a policy with these J: its rewards at a price of a tenth."""
    rewards = np.asarray([[[[0.2, 0.2]], [[first + 0.1, second + 0.1]]]])
    made = cell(outcomes=outcomes(rewards, np.asarray([[[0.0], [1.0]]]), [[0.5, 0.5]]))
    found = OwnUtility().measure(study([made], [INFO], truths={("counselling", 0): known}))
    return {row.label.removeprefix("share of the possible gain, "): row.value for row in found}


def test_policies_of_equal_sum_differ_under_the_other_utilities() -> None:
    even, corner = shares(0.5, 0.5), shares(0.9, 0.1)
    assert even["linear"].value == corner["linear"].value == pytest.approx(1.0)
    # Chebyshev: base -.5 * .8 = -.4; the best mixture is (.5, .5), -.25; the corner has -.45
    assert even["chebyshev"].value == pytest.approx(1.0)
    assert corner["chebyshev"].value == pytest.approx(-0.05 / 0.15)
    # thresholds .4: base .2; best (.5, .5): .4 + .01; the corner: .5 * (.4 + .05 + .1)
    assert even["thresholds"].value == pytest.approx(1.0)
    assert corner["thresholds"].value == pytest.approx((0.275 - 0.2) / 0.21)


def test_the_best_policies_of_the_study_and_their_mixtures_count_as_possible_too() -> None:
    """The front knows (.6, .2) and (.2, .6) alone, the study (.9, .1): a third of that and the rest of (.2, .6)."""
    known = replace(TRUTH, front_scores=np.asarray([[0.6, 0.2], [0.2, 0.6]]))
    best = shares(0.2 + 0.7 / 3, 0.6 - 0.5 / 3, known)
    assert best["chebyshev"].value == pytest.approx(1.0)


def test_where_the_best_policies_are_not_known_it_is_the_mean_utility_of_measured_scores() -> None:
    records = synthetic_study()
    rows = OwnUtility().measure(records)
    assert {row.label for row in rows} == {f"mean utility, {kind}" for kind in ("linear", "chebyshev", "thresholds")}
    assert all(row.value.value is not None for row in rows)


def test_intervals_end_at_what_is_possible() -> None:
    """Scores .1 and .9 alike: Student's t of two seeds that differ by .8 is wider than any range.

    Utilities from all rewards 0 to all 1, equal weights: linear 0 to 1, Chebyshev -.5 to 0, thresholds 0 to .46.
    """
    info = replace(INFO, listed=False)
    names = ("reflection", "empathy")
    cells = [
        cell(seed=seed, evaluations=[evaluation([[score] * 2], [0.5, 0.5], names)])
        for seed, score in enumerate((0.1, 0.9))
    ]
    found = {row.label.split(", ")[1]: row.value for row in OwnUtility().measure(study(cells, [info]))}
    assert (found["linear"].low, found["linear"].high) == (0.0, 1.0)
    assert (found["chebyshev"].low, found["chebyshev"].high) == (-0.5, 0.0)
    assert (found["thresholds"].low, found["thresholds"].high) == (0.0, pytest.approx(0.4 + 0.06))


def test_shares_end_at_all_that_can_be_gained() -> None:
    rewards = [np.asarray([[[[0.2, 0.2]], [[each + 0.1, each + 0.1]]]]) for each in (0.3, 0.5)]
    cells = [
        cell(seed=seed, outcomes=outcomes(each, np.asarray([[[0.0], [1.0]]]), [[0.5, 0.5]]))
        for seed, each in enumerate(rewards)
    ]
    rows = OwnUtility().measure(study(cells, [INFO], truths={("counselling", seed): TRUTH for seed in (0, 1)}))
    assert {row.value.high for row in rows} == {1.0}


def test_a_seed_without_a_known_optimum_is_named() -> None:
    made = cell(outcomes=None)
    for row in OwnUtility().measure(study([made], [replace(INFO)])):
        assert row.value.value is None
        assert "seed 0 has no known optimum" in row.value.reason


def test_kinds_that_need_ranges_have_no_value_where_a_range_has_no_ends() -> None:
    first = replace(INFO.objectives[0], range=(-np.inf, np.inf), pass_threshold=None)
    for info in (replace(INFO, listed=listed, objectives=(first, INFO.objectives[1])) for listed in (True, False)):
        scored = outcomes(np.full((1, 1, 1, 2), 0.4), np.zeros((1, 1, 1)), [[0.5, 0.5]], scales=(1.0,))
        made = cell(evaluations=[evaluation([[0.4, 0.4]], [0.5, 0.5], ("reflection", "empathy"))], outcomes=scored)
        rows = OwnUtility().measure(study([made], [info], truths={("counselling", 0): TRUTH}))
        found = {row.label.split(", ")[1]: row.value for row in rows}
        assert found["linear"].value is not None
        assert "without a range with two ends (reflection)" in found["chebyshev"].reason
        assert "without a pass threshold, and no range with two ends (reflection)" in found["thresholds"].reason
        assert found["chebyshev"].value is found["thresholds"].value is None
