from __future__ import annotations

import numpy as np
import pytest

from paretune.core.errors import NonFiniteError, ShapeError, UnknownNameError
from paretune.pareto.front import non_dominated
from paretune.pareto.survival import contributions, crowding, dominance, ranks, survival_order

NONE = np.zeros((4, 2))


def test_without_doubt_the_first_rank_is_the_front() -> None:
    draws = np.random.default_rng(0)
    for objectives in (1, 2, 3):
        for _ in range(20):
            points = draws.integers(0, 4, (9, objectives)) / 4  # with ties
            rank = ranks(dominance(points, np.zeros_like(points)))
            np.testing.assert_array_equal(rank == 0, non_dominated(points))
            for level in range(1, rank.max() + 1):  # each is dominated by one of the rank before
                before = points[rank == level - 1]
                for point in points[rank == level]:
                    assert ((before >= point).all(axis=1) & (before > point).any(axis=1)).any()


def test_a_difference_within_the_noise_dominates_nobody() -> None:
    """Standard errors .3 and .4 make one of .5 for the difference: a gain of .4 is doubtful, one of .6 is not."""
    errors = [[0.3, 0.3], [0.4, 0.4]]
    assert not dominance([[1.4, 1.0], [1.0, 1.0]], errors, doubt=1).any()
    assert dominance([[1.6, 1.0], [1.0, 1.0]], errors, doubt=1).tolist() == [[False, True], [False, False]]
    assert not dominance([[1.0, 1.0], [1.0, 1.0]], [[0, 0], [0, 0]]).any()  # equal ones never


def test_contributions_are_those_on_paper() -> None:
    """Above (0, 0): (1, 3) alone holds 1 x 1, (2, 2) alone 1 x 1, (3, 1) alone 1 x 1; (1, 1) nothing."""
    points = [[1, 3], [2, 2], [3, 1], [1, 1]]
    np.testing.assert_allclose(contributions(points, NONE, [0, 0]), [1, 1, 1, 0])
    twice = [[1, 3], [2, 2], [2, 2], [3, 1]]
    np.testing.assert_allclose(contributions(twice, NONE, [0, 0]), [1, 0, 0, 1])  # either stands for the other
    doubted = [[0, 0], [0, 0], [0.5, 0.5], [0, 0]]  # measured as (2.5, 2.5)
    # what it adds: [0, 2.5]^2 less [0, 2]^2 of its twin, less a strip of .5 x 1 below (1, 3) and one beside (3, 1)
    np.testing.assert_allclose(contributions(twice, doubted, [0, 0], doubt=1)[2], 6.25 - 4 - 2 * 0.5)
    assert contributions([[2.0]], [[0.5]], [0.5], doubt=1).tolist() == [2.0]  # one objective, nobody else


def test_crowding_is_that_on_paper() -> None:
    """Spans 4 and 4: (1, 3) lies between (0, 4) and (2, 2): 2/4 + 2/4; (2, 2) between (1, 3) and (4, 0): 3/4 + 3/4."""
    assert crowding([[0, 4], [1, 3], [2, 2], [4, 0]]).tolist() == [np.inf, 1.0, 1.5, np.inf]
    assert crowding([[1, 1], [1, 1]]).tolist() == [0, 0]
    assert crowding(np.zeros((0, 2))).tolist() == []


@pytest.mark.parametrize("rule", ["hypervolume", "crowding"])
def test_the_front_comes_first_and_its_most_crowded_member_last(rule: str) -> None:
    points = np.array([[0.1, 0.9], [0.5, 0.5], [0.52, 0.49], [0.9, 0.1], [0.4, 0.4], [0.1, 0.1]])
    order = survival_order(points, np.zeros_like(points), rule)
    assert sorted(order[:4]) == [0, 1, 2, 3]
    assert set(order[:2]) == {0, 3}  # what is best for one objective alone
    assert order[-2:].tolist() == [4, 5]


@pytest.mark.parametrize("rule", ["hypervolume", "crowding"])
def test_order_is_a_permutation_in_which_nobody_precedes_who_dominates_it(rule: str) -> None:
    draws = np.random.default_rng(1)
    for objectives in (1, 2, 3):
        for _ in range(10):
            points, errors = draws.random((8, objectives)), draws.random((8, objectives)) / 10
            order = survival_order(points, errors, rule, doubt=1.0)
            assert sorted(order) == list(range(8))
            place = np.argsort(order)
            for better, worse in zip(*np.nonzero(dominance(points, errors, 1.0)), strict=True):
                assert place[better] < place[worse]


def test_the_best_for_one_objective_stays_where_its_other_score_is_lowest() -> None:
    points = np.array([[1.0, 0.0], [0.6, 0.6], [0.55, 0.65], [0.0, 1.0]])
    assert set(survival_order(points, NONE)[:2]) == {0, 3}
    assert contributions(points, NONE, [0, 0])[0] == 0  # above the task's reference point it would count nothing


def test_equal_policies_are_kept_before_dominated_ones() -> None:
    points = np.array([[0.5, 0.5], [0.5, 0.5], [0.4, 0.4], [0.5, 0.4]])
    assert survival_order(points, NONE)[:2].tolist() == [0, 1]
    assert survival_order(np.zeros((0, 2)), np.zeros((0, 2))).tolist() == []


def test_what_cannot_be_ordered_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"survival must be one of"):
        survival_order([[1.0]], [[0.0]], "luck")
    with pytest.raises(ShapeError, match=r"errors must be one per score \[1, 2\], got shape \[1, 1\]"):
        dominance([[1.0, 2.0]], [[0.0]])
    with pytest.raises(NonFiniteError, match="scores must be finite"):
        survival_order([[np.nan, 1.0]], [[0.0, 0.0]])
