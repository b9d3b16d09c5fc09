from __future__ import annotations

import numpy as np
import pytest

from paretune.core.errors import ShapeError, UnknownNameError
from paretune.core.utilities import utility_table

SCORES = np.asarray([[1.0, 0.0], [0.4, 0.4], [0.0, 1.0]])


def test_chebyshev_finds_the_compromise_that_linear_weights_never_do() -> None:
    """(.4, .4) lies below the chord: .4 against .5 for equal weights; what it lacks most is .5 x .6 against .5 x 1."""
    even = np.asarray([[0.5, 0.5]])
    assert utility_table("linear", SCORES, even).round(12).tolist() == [[0.5, 0.4, 0.5]]
    found = utility_table("chebyshev", SCORES, even, np.ones(2))
    np.testing.assert_allclose(found, [[0.025 - 0.5, 0.02 - 0.3, 0.025 - 0.5]])


def test_at_a_corner_all_utilities_want_that_objective() -> None:
    for name, points in (("linear", None), ("chebyshev", np.ones(2)), ("thresholds", np.zeros(2))):
        assert utility_table(name, SCORES, np.eye(2), points).argmax(axis=1).tolist() == [0, 2]


def test_beyond_the_ideal_more_is_still_better_and_what_has_no_weight_plays_no_part() -> None:
    """Ideal .3, passed by both: the first is .7 and the second .1 beyond it; the other objective has no weight."""
    found = utility_table("chebyshev", SCORES[:2], np.asarray([[1.0, 0.0]]), np.full(2, 0.3))
    np.testing.assert_allclose(found, [[0.05 + 0.7, 0.02 + 0.1]])


def test_the_utility_that_selects_is_the_augmented_one_of_training_less_a_constant() -> None:
    from paretune.pareto.scalarisation import augmented_chebyshev_utility

    draws = np.random.default_rng(0)
    scores, ideal, wanted = draws.random((6, 3)), draws.random(3), draws.dirichlet(np.ones(3))
    trained = augmented_chebyshev_utility(scores, wanted, ideal, ideal - 1, 0.05)
    found = utility_table("chebyshev", scores, wanted[None], ideal)[0]
    np.testing.assert_allclose(found - trained, 0.05 * wanted @ ideal)


def test_thresholds_come_first_then_the_preference_then_what_is_lacking() -> None:
    wanted = np.asarray([[1.0, 0.0]])
    assert utility_table("thresholds", SCORES, wanted, np.asarray([0.0, 0.3])).argmax() == 1
    out_of_reach = utility_table("thresholds", SCORES, wanted, np.asarray([0.9, 0.9]))
    np.testing.assert_allclose(out_of_reach, [[-1.0 - 0.9, -1.0 - 1.0, -1.0 - 0.9]])
    negative = utility_table("thresholds", SCORES - 5, wanted, np.asarray([-5.0, -4.7]))
    assert negative.argmax() == 1  # whoever reaches them is ahead, however low all scores are


@pytest.mark.parametrize("name", ["chebyshev", "thresholds"])
def test_what_is_lacked_counts_in_widths_of_the_ranges(name: str) -> None:
    """A reward in percent gives the table of the same reward in shares, up to where the failing ones begin."""
    unit, point = np.asarray([1.0, 100.0]), np.asarray([0.9, 0.9])
    plain = utility_table(name, SCORES, np.full((1, 2), 0.5), point)
    scaled = utility_table(name, SCORES * unit, np.full((1, 2), 0.5), point * unit, unit)
    np.testing.assert_allclose(scaled, plain)


def test_unknown_names_and_points_of_another_length_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="utility must be one of"):
        utility_table("luck", SCORES, np.eye(2))
    with pytest.raises(ShapeError, match=r"points of utility 'chebyshev' must be one per objective \(2\), got None"):
        utility_table("chebyshev", SCORES, np.eye(2))
    with pytest.raises(ShapeError, match=r"widths of utility 'chebyshev' must be one per objective \(2\), got \[3\]"):
        utility_table("chebyshev", SCORES, np.eye(2), np.ones(2), np.ones(3))
