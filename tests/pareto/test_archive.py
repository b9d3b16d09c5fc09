from __future__ import annotations

import numpy as np
import pytest

from paretune.core.errors import ShapeError, UnknownNameError
from paretune.pareto.archive import archive_order, undominated
from paretune.pareto.front import non_dominated


def test_equal_scores_of_two_policies_both_stay_and_a_copy_of_one_goes_first() -> None:
    scores = [[0.6, 0.6], [0.6, 0.6], [0.6, 0.6], [0.9, 0.1], [0.5, 0.5], [np.nan, 0.9]]
    order = archive_order(scores, np.zeros((6, 2)), ["a", "b", "a", "c", "d", "e"]).tolist()
    assert set(order[:3]) == {0, 1, 3}
    assert order[3:] == [4, 2, 5]  # dominated; the copy; one that nobody could score


def test_many_policies_that_measure_alike_all_come_before_who_is_worse() -> None:
    """An archive that drops equal vectors would keep one of them."""
    scores = np.vstack([[0.4, 0.4], np.full((40, 2), 0.5)])
    assert archive_order(scores, np.zeros((41, 2)), range(41)).tolist()[-1] == 0


@pytest.mark.parametrize("rule", ["hypervolume", "crowding"])
def test_what_is_kept_without_noise_is_on_the_front_while_it_lasts(rule: str) -> None:
    draws = np.random.default_rng(0)
    for objectives in (1, 2, 3):
        for _ in range(10):
            points = draws.integers(0, 5, (10, objectives)) / 5
            front = non_dominated(points)
            kept = archive_order(points, np.zeros_like(points), range(10), rule)[: front.sum()]
            assert set(kept.tolist()) == set(np.flatnonzero(front).tolist())


def test_noise_saves_who_may_be_as_good() -> None:
    """A difference of .1 with standard errors of .1 each (.14 together) is doubtful, with .01 it is not."""
    scores = [[0.5, 0.5], [0.5, 0.4]]
    assert undominated(scores, np.full((2, 2), 0.1), 1.0).tolist() == [True, True]
    assert undominated(scores, np.full((2, 2), 0.01), 1.0).tolist() == [True, False]
    assert undominated(scores, np.full((2, 2), 0.1)).tolist() == [True, False]


def test_an_empty_archive_stays_empty() -> None:
    assert archive_order(np.zeros((0, 2)), np.zeros((0, 2)), []).tolist() == []


def test_what_cannot_be_archived_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"one row each, got shapes \[1, 1\], \[1, 1\] and 2 policies"):
        archive_order([[1.0]], [[0.0]], ["a", "b"])
    with pytest.raises(UnknownNameError, match="survival must be one of"):
        archive_order([[1.0]], [[0.0]], ["a"], "luck")
