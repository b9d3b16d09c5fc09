from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from builders import CEILING, METHODS, cell, outcomes, study, synthetic_study, task_info, truth
from paretune.core.protocols import MetricValue
from paretune.metrics.true_front import TrueFront

TWO = ("reflection", "empathy")
POINTS = [[1.0, 0.0], [0.0, 1.0]]
INFO = task_info(preferences=POINTS, objectives=TWO, audit=(), listed=True)
IGD, EPSILON, LOSS = (
    f"{name} (lower is better)" for name in ("IGD+", "additive epsilon", "maximum utility loss")
)  # fmt: skip
VOLUME = "relative hypervolume, 2 candidates"
COVERAGE = "coverage F1, tolerance 10% of the largest gain"


def measured(
    scores: Sequence[Sequence[float]],
    optima: Sequence[Sequence[float]] = ((4.0, 1.0), (1.0, 3.0)),
    base: Sequence[float] = (2.0, 1.0),
    middle: Sequence[Sequence[float]] = ((3.0, 2.0),),
    front: Sequence[Sequence[float]] | None = None,
) -> dict[str, MetricValue]:
    """Policies of one prompt and KL 0, so that J is the reward; the front has a middle point beside the optima."""
    rewards = np.array(scores)[:, None, None]
    front = [*optima, *middle] if front is None else front
    known = truth([base], np.array(optima)[:, None], np.zeros((2, 1)), POINTS, front_scores=front)
    scored = outcomes(rewards, np.zeros((len(scores), 1, 1)), POINTS, scales=(1.0,))
    rows = TrueFront().measure(study([cell(outcomes=scored)], [INFO], truths={("counselling", 0): known}))
    return {row.label: row.value for row in rows}


def test_relative_hypervolume_lies_above_the_lowest_of_front_and_base() -> None:
    # Corner (1, 1). Front (4, 1), (3, 2), (1, 3): only (3, 2) has a volume, 2 x 1. The policy (2, 2) has 1 x 1.
    rows = measured([[2.0, 2.0], [2.0, 2.0]])
    assert rows[VOLUME].value == pytest.approx(0.5)
    # the optima (4, 1) and (1, 3) alone are at the corner's edges, as the base (2, 1) is
    assert rows[VOLUME].reason.endswith(
        "the base model alone has 0, the best policies for the same preferences 0; front of 3 points; reference "
        "point: the lowest J of front and base model"
    )


def test_a_base_below_the_front_lowers_the_reference_point() -> None:
    # Corner (0, 1): the front has 3 x 1 + 1 x 1 and the policy (1, 3) has 1 x 2, from (1, 1) it would have none.
    rows = measured([[1.0, 3.0], [1.0, 3.0]], base=(0.0, 1.0))
    assert rows[VOLUME].value == pytest.approx(0.5)
    assert measured([[1.0, 3.0], [1.0, 3.0]])[VOLUME].value == 0.0


def test_distances_to_the_front() -> None:
    # Lacking of the policy (2, 2) to (4, 1), (1, 3), (3, 2): 2, 1, 1
    rows = measured([[2.0, 2.0], [2.0, 2.0]])
    assert rows[IGD].value == pytest.approx(4 / 3)
    assert rows[EPSILON].value == pytest.approx(2.0)
    assert rows[LOSS].value == pytest.approx(2.0)  # for all weight on the first: 4 against 2


def test_coverage_counts_what_lies_within_a_tenth_of_the_largest_gain() -> None:
    # Largest gains (2, 2), so a tolerance of .2: the first policy is .19 off its optimum, the second .21.
    assert measured([[3.81, 1.0], [1.0, 2.79]])[COVERAGE].value == pytest.approx(0.5)
    assert measured([[3.81, 1.0], [1.0, 2.81]])[COVERAGE].value == pytest.approx(1.0)


def test_the_front_itself_is_at_no_distance() -> None:
    rows = measured([[4.0, 1.0], [1.0, 3.0]], middle=())
    assert [rows[label].value for label in (IGD, EPSILON, LOSS, COVERAGE)] == [0.0, 0.0, 0.0, 1.0]


def test_front_without_volume_has_no_relative_one() -> None:
    rows = measured([[2.0, 2.0], [2.0, 2.0]], middle=())
    assert rows[VOLUME].value is None
    assert rows[VOLUME].reason == "0 of 1 seeds: seed 0 has no front above its reference point"
    assert rows[IGD].value is not None


def test_distances_are_to_the_front_alone_whatever_the_preferences_of_the_study() -> None:
    scores, front = [[2.0, 2.0], [2.0, 2.0]], [[4.0, 1.0], [3.0, 2.0], [1.0, 3.0]]
    one = measured(scores, front=front)
    other = measured(scores, optima=[[3.5, 1.6], [1.5, 2.7]], front=front)
    for label in (IGD, EPSILON):
        assert one[label].value == other[label].value


def test_no_best_policy_has_more_volume_than_the_front() -> None:
    # Corner (1, 1): the front (4, 1), (1, 3) has no volume, the best policies (3, 2) and (2, 2.5) have 2 x 1 + 1 x .5
    optima = [[3.0, 2.0], [2.0, 2.5]]
    rows = measured(optima, optima=optima, front=[[4.0, 1.0], [1.0, 3.0]])
    assert rows[VOLUME].value == pytest.approx(1.0)


def test_task_without_a_known_front_has_one_row_that_says_so() -> None:
    rows = TrueFront().measure(synthetic_study(seeds=(0,)))
    assert {row.label for row in rows} == {"relative hypervolume, 7 candidates"}
    assert {row.value.reason for row in rows} == {
        "0 of 1 seeds: seed 0 has no known optimum (completions cannot be listed)"
    }


def test_policies_nearer_to_their_optima_are_nearer_on_every_indicator() -> None:
    base, optima = np.array([2.0, 1.0]), np.array([[4.0, 1.5], [1.5, 3.0]])
    near, far = (measured((base + share * (optima - base)).tolist(), optima.tolist()) for share in (0.9, 0.4))
    for label in (IGD, EPSILON, LOSS):
        assert (far[label].value or 0.0) > (near[label].value or 0.0) > 0
    assert 0 < (far[VOLUME].value or 0.0) < (near[VOLUME].value or 0.0) < 1


def test_every_method_of_an_exact_study_has_a_place_below_the_front() -> None:
    records = synthetic_study(methods=(*METHODS, CEILING), exact=True)
    for row in TrueFront().measure(records):
        if row.label.startswith("relative hypervolume"):
            assert 0 < (row.value.value or 0.0) < 1
            assert len(row.value.per_seed) == 3
