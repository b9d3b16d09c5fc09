import numpy as np
import pytest

from builders import cell, evaluation, study, synthetic_study, task_info
from paretune.metrics.pareto_optimality import ParetoOptimality

TWO = ("reflection", "empathy")


def measured(scores, reference_point=(0.0, 0.0)):
    preferences = [[1, 0], [0, 1]]
    info = task_info(preferences=preferences, objectives=TWO, audit=(), reference_point=reference_point)
    records = [evaluation([score], preference, TWO) for score, preference in zip(scores, preferences)]
    (row,) = ParetoOptimality().measure(study([cell(evaluations=records)], [info]))
    return row


def test_volume_lies_between_the_scores_and_the_tasks_reference_point():
    # .8 x .2 + .5 x .6 - .5 x .2 = .36; from (.1, .1): .7 x .1 + .4 x .5 - .4 x .1 = .23
    assert measured([[0.8, 0.2], [0.5, 0.6]]).value.value == pytest.approx(0.36)
    assert measured([[0.8, 0.2], [0.5, 0.6]], (0.1, 0.1)).value.value == pytest.approx(0.23)


def test_label_says_naive_how_many_candidates_and_from_where():
    row = measured([[0.8, 0.2], [0.5, 0.6]], (0.1, -2.0))
    assert row.label == "naive, 2 candidates, reference point (0.1, -2)"
    assert "naive" in ParetoOptimality.title


def test_policies_below_the_reference_point_have_volume_zero_and_missing_ones_none():
    assert measured([[0.1, 0.1], [0.1, 0.1]], (0.2, 0.0)).value.value == 0.0
    value = measured([[0.8, 0.2], [0.5, np.nan]]).value
    assert value.value is None
    assert value.reason.startswith("0 of 1 seeds: seed 0 has no empathy reward for empathy")


def test_candidate_that_is_missing_costs_the_seed_its_value():
    info = task_info(preferences=[[1, 0], [0, 1]], objectives=TWO, audit=())
    (row,) = ParetoOptimality().measure(study([cell(evaluations=[evaluation([[1, 1]], [1, 0], TWO)])], [info]))
    assert row.value.value is None
    assert "has no evaluation for empathy" in row.value.reason


def test_label_is_the_same_for_every_method():
    rows = ParetoOptimality().measure(synthetic_study(failed={("linear", 0): "crash"}))
    assert {row.label for row in rows} == {"naive, 7 candidates, reference point (0, 0, 0)"}
