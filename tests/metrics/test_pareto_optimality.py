from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import ArrayLike

from builders import CEILING, cell, evaluation, study, synthetic_study, task_info
from paretune.core.protocols import MetricValue
from paretune.metrics.pareto_optimality import ParetoOptimality
from paretune.metrics.prompts import prompt_scores
from paretune.pareto.polar import hypervolume_pair

TWO = ("reflection", "empathy")
NAN = float("nan")
IGD, EPSILON = (f"{name}, to the best known front (lower is better)" for name in ("IGD+", "additive epsilon"))


def measured(rewards: Sequence[ArrayLike], reference_point: Sequence[float] = (0.0, 0.0)) -> dict[str, MetricValue]:
    """Two candidates, rewards `[P, K]` each."""
    preferences = [[1, 0], [0, 1]]
    info = task_info(preferences=preferences, objectives=TWO, audit=(), reference_point=reference_point)
    records = [evaluation(each, preference, TWO) for each, preference in zip(rewards, preferences, strict=True)]
    rows = ParetoOptimality().measure(study([cell(evaluations=records)], [info]))
    return {row.label.split(", 2")[0]: row.value for row in rows}


def test_volume_lies_between_the_scores_and_the_tasks_reference_point() -> None:
    # .8 x .2 + .5 x .6 - .5 x .2 = .36; from (.1, .1): .7 x .1 + .4 x .5 - .4 x .1 = .23
    assert measured([[[0.8, 0.2]], [[0.5, 0.6]]])["naive"].value == pytest.approx(0.36)
    assert measured([[[0.8, 0.2]], [[0.5, 0.6]]], (0.1, 0.1))["naive"].value == pytest.approx(0.23)


def test_labels_say_naive_or_cross_fitted_how_many_candidates_and_from_where() -> None:
    info = task_info(preferences=[[1, 0], [0, 1]], objectives=TWO, audit=(), reference_point=(0.1, -2.0))
    labels = [row.label for row in ParetoOptimality().measure(study([cell()], [info]))]
    assert labels == [
        "naive, 2 candidates, reference point (0.1, -2)",
        "cross-fitted, 2 candidates, reference point (0.1, -2)",
        "expected utility, naive, 2 candidates",
        "expected utility, cross-fitted, 2 candidates",
        "evaluation sd: reflection",
        "evaluation sd: empathy",
        IGD,
        EPSILON,
        "controllability: reflection",
        "controllability: empathy",
        "controllability: mean",
    ]


def test_without_noise_both_figures_agree() -> None:
    rows = measured([[[0.8, 0.2]] * 4, [[0.5, 0.6]] * 4])
    assert rows["cross-fitted"].value == pytest.approx(0.36, rel=1e-6)
    # best for reflection .8, for empathy .6
    assert rows["expected utility, naive"].value == pytest.approx(0.7)
    assert rows["expected utility, cross-fitted"].value == pytest.approx(0.7)
    assert rows["evaluation sd: reflection"].value == pytest.approx(0.0, abs=1e-12)


def test_noise_raises_the_naive_figures_above_the_cross_fitted_ones() -> None:
    rng = np.random.default_rng(0)
    rows = measured([0.5 + rng.normal(0, 0.2, (40, 2)) for _ in range(2)])
    for kind in ("", "expected utility, "):
        naive, fitted = rows[f"{kind}naive"].value, rows[f"{kind}cross-fitted"].value
        assert naive is not None
        assert fitted is not None
        assert naive > fitted
    assert rows["evaluation sd: empathy"].value == pytest.approx(0.2 / np.sqrt(40), rel=0.2)


def test_one_prompt_has_no_halves() -> None:
    rows = measured([[[0.8, 0.2]], [[0.5, 0.6]]])
    assert rows["cross-fitted"].value is None
    assert "seed 0 has no cross-fitted figure (one prompt" in rows["cross-fitted"].reason
    assert "seed 0 has no evaluation sd (one prompt" in rows["evaluation sd: empathy"].reason


def test_policies_below_the_reference_point_have_volume_zero_and_missing_ones_none() -> None:
    assert measured([[[0.1, 0.1]], [[0.1, 0.1]]], (0.2, 0.0))["naive"].value == 0.0
    value = measured([[[0.8, 0.2]], [[0.5, NAN]]])["naive"]
    assert value.value is None
    assert value.reason.startswith("0 of 1 seeds: seed 0 has no empathy reward for empathy")


def test_a_prompt_that_lacks_a_reward_of_one_candidate_is_left_out_for_all() -> None:
    # the second prompt lifts the first candidate to .9 but lacks a reward of the other: both are judged on the first
    rows = measured([[[0.8, 0.2], [1.0, 1.0]], [[0.5, 0.6], [0.5, NAN]]])
    assert rows["naive"].value == pytest.approx(0.36)
    assert rows["naive"].reason.endswith("1 of 2 prompts left out for all candidates: a reward is missing")
    nothing = measured([[[0.8, NAN], [1.0, 1.0]], [[0.5, 0.6], [0.5, NAN]]])["naive"]
    assert "seed 0 has no prompt on which every candidate has all rewards" in nothing.reason


def test_candidate_that_is_missing_costs_the_seed_its_value() -> None:
    info = task_info(preferences=[[1, 0], [0, 1]], objectives=TWO, audit=())
    records = study([cell(evaluations=[evaluation([[1, 1]], [1, 0], TWO)])], [info])
    for row in ParetoOptimality().measure(records):
        assert row.value.value is None
        assert "has no evaluation for empathy" in row.value.reason


def test_samples_of_a_prompt_are_averaged_and_prompts_are_candidates_common_ground() -> None:
    first = evaluation([[0.2, 0.4], [0.4, 0.6], [1.0, 1.0], [0.0, 0.0]], [1, 0], TWO, samples=2)
    found = prompt_scores([first, first])
    assert not isinstance(found, str)
    np.testing.assert_allclose(found[0], [[[0.3, 0.5], [0.5, 0.5]]] * 2)
    assert prompt_scores([first, evaluation([[1, 1]], [0, 1], TWO)]) == "has evaluations on different prompts"
    uneven = evaluation([[0.2, 0.4], [0.4, 0.6], [1.0, 1.0]], [1, 0], TWO, samples=2)
    assert prompt_scores([uneven]) == "has prompts with unequal numbers of completions"


def test_the_metric_measures_the_tasks_prompts_from_the_tasks_corner() -> None:
    records = synthetic_study(seeds=(0,))
    info = records.tasks["counselling"]
    scores = [
        each.rewards[:, :3].reshape(info.test_prompts, info.samples, 3).mean(axis=1)
        for each in records.cells[0].evaluations
    ]
    pair = hypervolume_pair(scores, info.reference_point)
    naive, fitted, *_ = ParetoOptimality().measure(records)
    assert naive.value.value == pytest.approx(pair.naive)
    assert fitted.value.value == pytest.approx(pair.cross_fitted)
    moved = task_info(reference_point=(0.1, 0.1, 0.1))
    other = next(iter(ParetoOptimality().measure(synthetic_study(seeds=(0,), task=moved))))
    assert other.value.value is not None
    assert other.value.value < 0.8 * pair.naive


def test_label_is_the_same_for_every_method() -> None:
    rows = ParetoOptimality().measure(synthetic_study(failed={("linear", 0): "crash"}))
    assert {row.label for row in rows if row.label.startswith("naive")} == {
        "naive, 7 candidates, reference point (0, 0, 0)"
    }


POINTS = [[1, 0], [0, 1], [0.5, 0.5]]


def rows_of(*scored: tuple[str, int, Sequence[Sequence[float]]], method: str = "linear") -> dict[str, MetricValue]:
    """Methods, seeds and the scores of the policies that answer three preferences."""
    info = task_info(preferences=POINTS, objectives=TWO, audit=())
    cells = [
        cell(name, seed, [evaluation([each], point, TWO) for each, point in zip(scores, POINTS, strict=False)])
        for name, seed, scores in scored
    ]
    cells = [replace(each, family="reference") if each.method == "base" else each for each in cells]
    return {row.label: row.value for row in ParetoOptimality().measure(study(cells, [info])) if row.method == method}


def test_distance_to_what_all_methods_of_the_study_reach_together() -> None:
    mine, other = [[0.6, 0.2], [0.2, 0.6], [0.3, 0.3]], [[0.5, 0.5], [0.5, 0.4], [0.1, 0.9]]
    # front: (.6, .2), (.5, .5) and (.1, .9); (.2, .6) is not dominated either. Lacking of mine: 0; to (.5, .5) from
    # (.2, .6) .3, from (.6, .2) .3, from (.3, .3) .283; to (.1, .9) from (.2, .6) .3; to (.2, .6) nothing
    rows = rows_of(("linear", 0, mine), ("weight_grid", 0, other))
    assert rows[IGD].value == pytest.approx((0.08**0.5 + 0.3) / 4)
    assert rows[EPSILON].value == pytest.approx(0.3)  # (.1, .9) needs .3 from (.2, .6); (.5, .5) only .2 from (.3, .3)
    assert rows[IGD].reason == (
        "one seed: no interval; front of 4 points from 2 methods: it depends on which methods the study has"
    )
    # theirs to (.6, .2): .1 from (.5, .5); to (.2, .6): .1 from (.5, .5)
    theirs = rows_of(("linear", 0, mine), ("weight_grid", 0, other), method="weight_grid")
    assert theirs[IGD].value == pytest.approx(0.2 / 4)
    assert theirs[EPSILON].value == pytest.approx(0.1)


def test_only_policies_of_the_seed_make_its_front() -> None:
    mine, worse, better = [[0.6, 0.2]] * 3, [[0.1, 0.1]] * 3, [[0.9, 0.9]] * 3
    rows = rows_of(("linear", 0, mine), ("linear", 1, mine), ("weight_grid", 0, worse), ("weight_grid", 1, better))
    assert rows[EPSILON].per_seed == {0: 0.0, 1: pytest.approx(0.7)}
    assert rows[EPSILON].low == 0.0  # no distance is below 0, whatever Student's t says


def test_a_method_alone_has_no_known_front_to_be_compared_with() -> None:
    rows = rows_of(("linear", 0, [[0.6, 0.2]] * 3), ("weight_grid", 0, [[0.6, 0.2]] * 2))  # the other is not complete
    for label in (IGD, EPSILON):
        assert rows[label].value is None
        assert "seed 0 has no other method in the study to be compared with" in rows[label].reason


def test_base_model_and_ceilings_are_no_methods_to_be_compared_with() -> None:
    mine, above = [[0.6, 0.2]] * 3, [[0.9, 0.9]] * 3
    for other in ("base", CEILING):
        rows = rows_of(("linear", 0, mine), (other, 0, above))
        assert "has no other method in the study to be compared with" in rows[IGD].reason
    # the base model has a point of the front (.1, .5), the ceiling none
    rows = rows_of(("linear", 0, mine), ("weight_grid", 0, mine), ("base", 0, [[0.1, 0.5]] * 3), (CEILING, 0, above))
    assert rows[EPSILON].value == pytest.approx(0.3)
    assert "front of 2 points from 2 methods" in rows[EPSILON].reason


def test_fronts_of_budgets_and_tasks_are_apart() -> None:
    """The better policies have another budget, or another task: neither makes the front of the first."""
    info = task_info(preferences=POINTS, objectives=TWO, audit=())
    worse, better = ([evaluation([[score] * 2], point, TWO) for point in POINTS] for score in (0.2, 0.8))
    first = [cell(name, 0, worse) for name in ("linear", "weight_grid")]
    richer = [cell(name, 0, better, budget=12000) for name in ("linear", "weight_grid")]
    other = [cell(name, 0, better, task="other") for name in ("linear", "weight_grid")]
    rows = ParetoOptimality().measure(study([*first, *richer, *other], [info, replace(info, name="other")]))
    mine = [row for row in rows if row.label == EPSILON and (row.task, row.budget_completions) == ("counselling", 6000)]
    assert [row.value.value for row in mine] == [0.0, 0.0]


def test_where_the_exact_front_is_known_no_other_is_made() -> None:
    labels = {row.label for row in ParetoOptimality().measure(synthetic_study(exact=True))}
    assert not [label for label in labels if "best known front" in label]


def test_intervals_end_at_the_volume_and_the_utility_of_all_rewards_together() -> None:
    rows = rows_of(("linear", 0, [[0.9, 0.9]] * 3), ("linear", 1, [[0.3, 0.3]] * 3))
    ends = {label: (value.low, value.high) for label, value in rows.items() if value.low is not None}
    assert ends["naive, 3 candidates, reference point (0, 0)"] == (0.0, 1.0)
    assert ends["expected utility, naive, 3 candidates"] == (0.0, 1.0)


def test_controllability_is_how_surely_more_weight_raises_the_score() -> None:
    # reflection: weights 1, 0, .5 and scores .6, .2, .7: of three pairs two follow, .5 -> 1 goes against: 1/3
    rows = rows_of(("linear", 0, [[0.6, 0.1], [0.2, 0.6], [0.7, 0.3]]))
    assert rows["controllability: reflection"].value == pytest.approx(1 / 3)
    assert rows["controllability: empathy"].value == pytest.approx(1.0)
    assert rows["controllability: mean"].value == pytest.approx(2 / 3)


def test_controllability_needs_scores_and_preferences_that_differ() -> None:
    rows = rows_of(("linear", 0, [[0.6, 0.1], [0.2, NAN], [0.7, 0.3]]))
    assert rows["controllability: reflection"].value is None
    assert "seed 0 has no empathy reward for empathy" in rows["controllability: mean"].reason
    info = task_info(preferences=[[0.5, 0.5]], unseen=[False], objectives=TWO, audit=())
    records = study([cell(evaluations=[evaluation([[0.5, 0.5]], [0.5, 0.5], TWO)])], [info])
    found = {row.label: row.value for row in ParetoOptimality().measure(records)}
    assert found["controllability: mean"].value is None
    assert found["controllability: mean"].reason == (
        "0 of 1 seeds: seed 0 has no two preferences that differ in the weight of reflection"
    )
