from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.core.errors import ConfigError, NonFiniteError, PreferenceError, ShapeError
from paretune.core.preferences import FloatArray
from paretune.pareto.scalarisation import (
    augmented_chebyshev_utility,
    bent_scores,
    best_chebyshev,
    best_threshold,
    chebyshev_slopes,
    chebyshev_utility,
    shortfalls,
    smooth_chebyshev_utility,
    threshold_slopes,
    threshold_utility,
)

seeds = st.tuples(st.integers(0, 10**6), st.integers(2, 20))
ONE, NONE = [1.0, 1.0], [0.0, 0.0]


def drawn(seed: int, objectives: int) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return scores, a preference, and an ideal above a nadir."""
    generator = np.random.default_rng(seed)
    preference = generator.dirichlet(np.ones(objectives))
    nadir = generator.normal(size=objectives)
    return generator.normal(size=objectives), preference, nadir + generator.uniform(0.5, 3, objectives), nadir


def by_differences(utility, scores: FloatArray, step: float = 1e-6) -> FloatArray:
    return np.asarray([(utility(scores + d) - utility(scores - d)) / (2 * step) for d in step * np.eye(len(scores))])


def test_the_worst_shortfall_counts_and_the_other_forms_by_hand() -> None:
    # shortfalls: .75 * (1 - .8) = .15 and .25 * (1 - .2) = .2
    given = ([0.8, 0.2], [0.75, 0.25], ONE, NONE)
    np.testing.assert_allclose(shortfalls(*given), [0.15, 0.2])
    assert chebyshev_utility(*given) == pytest.approx(-0.2)
    # -.1 log(e^1.5 + e^2) = -.1 log(4.481689 + 7.389056) = -.247409
    assert smooth_chebyshev_utility(*given, 0.1) == pytest.approx(-0.247409, abs=2e-6)
    assert augmented_chebyshev_utility(*given, 0.1) == pytest.approx(-0.2 - 0.1 * 0.35)
    # ideal 2, nadir -2 halves .6 and quarters it again: .75 * 1.2 / 4 and .25 * 1.8 / 4
    np.testing.assert_allclose(shortfalls([0.8, 0.2], [0.75, 0.25], [2, 2], [-2, -2]), [0.225, 0.1125])


@given(seeds)
def test_slopes_are_the_finite_differences_of_every_form(drawn_as: tuple[int, int]) -> None:
    scores, preference, ideal, nadir = drawn(*drawn_as)
    for smoothing in (0.05, 0.5):
        found = by_differences(
            partial(smooth_chebyshev_utility, preference=preference, ideal=ideal, nadir=nadir, smoothing=smoothing),
            scores,
        )
        slopes = chebyshev_slopes(scores, preference, ideal, nadir, smoothing=smoothing)
        np.testing.assert_allclose(slopes, found, atol=1e-6)  # curvature w^2 / mu * step^2
    two = np.sort(shortfalls(scores, preference, ideal, nadir))[-2:]
    if two[1] - two[0] > 1e-3:  # away from a kink
        found = by_differences(lambda s: chebyshev_utility(s, preference, ideal, nadir), scores)
        np.testing.assert_allclose(chebyshev_slopes(scores, preference, ideal, nadir), found, atol=1e-8)
        found = by_differences(lambda s: augmented_chebyshev_utility(s, preference, ideal, nadir, 0.1), scores)
        slopes = chebyshev_slopes(scores, preference, ideal, nadir, augmentation=0.1)
        np.testing.assert_allclose(slopes, found, atol=1e-8)
    if (np.abs(scores - ideal) > 1e-3).all():
        found = by_differences(lambda s: threshold_utility(s, preference, ideal, 0.2), scores)
        np.testing.assert_allclose(threshold_slopes(scores, preference, ideal, 0.2), found, atol=1e-8)


@given(seeds, st.floats(0.01, 2))
def test_the_smooth_form_is_below_the_sharp_one_by_at_most_mu_log_k(
    drawn_as: tuple[int, int], smoothing: float
) -> None:
    scores, preference, ideal, nadir = drawn(*drawn_as)
    sharp = chebyshev_utility(scores, preference, ideal, nadir)
    smooth = smooth_chebyshev_utility(scores, preference, ideal, nadir, smoothing)
    assert sharp - smoothing * np.log(len(scores)) - 1e-12 <= smooth <= sharp + 1e-12


@given(seeds)
def test_all_utilities_are_concave_and_rise_in_every_score(drawn_as: tuple[int, int]) -> None:
    one, preference, ideal, nadir = drawn(*drawn_as)
    other = np.random.default_rng(drawn_as[0] + 1).normal(size=len(one))
    middle = (one + other) / 2
    for utility in (
        lambda s: chebyshev_utility(s, preference, ideal, nadir),
        lambda s: smooth_chebyshev_utility(s, preference, ideal, nadir, 0.1),
        lambda s: augmented_chebyshev_utility(s, preference, ideal, nadir, 0.1),
        lambda s: threshold_utility(s, preference, nadir, 0.3),
    ):
        assert utility(middle) >= (utility(one) + utility(other)) / 2 - 1e-12
        assert (utility(one + np.eye(len(one))) >= utility(one) - 1e-12).all()


def test_an_objective_without_weight_plays_no_part_even_where_all_others_are_beyond_their_ideal() -> None:
    given = ([1.2, -5.0], [1.0, 0.0], ONE, NONE)
    assert chebyshev_utility(*given) == pytest.approx(0.2)
    assert smooth_chebyshev_utility(*given, 0.1) == pytest.approx(0.2)
    assert chebyshev_slopes(*given, smoothing=0.1).tolist() == [1.0, 0.0]
    assert chebyshev_slopes(*given, augmentation=0.1).tolist() == pytest.approx([1.1, 0.0])


def test_one_objective_is_its_own_utility() -> None:
    assert chebyshev_utility([0.25], [1.0], [1.0], [0.0]) == -0.75
    assert chebyshev_slopes([0.25], [1.0], [2.0], [0.0]).tolist() == [0.5]


def test_at_a_kink_both_sides_count_the_same() -> None:
    assert chebyshev_slopes([0.5, 0.5], [0.5, 0.5], ONE, NONE).tolist() == [0.25, 0.25]


def test_the_best_mixtures_of_a_front_by_hand() -> None:
    # on the line s_1 + s_2 = 1 with w = (.75, .25): .75 (1 - s) = .25 s, so s = .75, at -.1875
    front = np.eye(2)
    assert best_chebyshev(front, [0.75, 0.25], ONE, NONE) == pytest.approx(-0.1875)
    # thresholds .5, .2: all from (.5, .5) to (.8, .2) reach both, with .3 to spare, a tenth of which counts
    assert best_threshold(front, [0.5, 0.5], [0.5, 0.2], 0.1) == pytest.approx(0.5 * (0.5 + 0.1 * 0.3 + 0.2))


@given(st.integers(0, 10**6))
def test_the_best_mixture_of_two_points_is_that_of_a_dense_search(seed: int) -> None:
    generator = np.random.default_rng(seed)
    front, preference, limits = generator.random((2, 3)), generator.dirichlet(np.ones(3)), generator.random(3)
    share = np.linspace(0, 1, 2001)[:, None]
    mixed = share * front[0] + (1 - share) * front[1]
    best = chebyshev_utility(mixed, preference, np.ones(3), np.zeros(3)).max()
    assert best_chebyshev(front, preference, np.ones(3), np.zeros(3)) == pytest.approx(best, abs=1e-3)  # slopes <= 1
    best = threshold_utility(mixed, preference, limits, 0.2).max()
    assert best_threshold(front, preference, limits, 0.2) == pytest.approx(best, abs=1e-3)


def test_shapes_and_values_out_of_range_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"ideal and nadir must be one per objective \(2\), got \[3\] and \[2\]"):
        chebyshev_utility([0, 0], [0.5, 0.5], [1, 1, 1], NONE)
    with pytest.raises(ConfigError, match=r"ideal must be above nadir, got \[1\.0, 0\.0\] and \[0\.0, 0\.0\]"):
        chebyshev_utility([0, 0], [0.5, 0.5], [1, 0], NONE)
    with pytest.raises(PreferenceError, match="non-negative"):
        threshold_utility([0, 0], [0.7, -0.7], ONE, 0.1)
    with pytest.raises(ShapeError, match=r"scores must be \[\.\.\., K\], got 1"):
        threshold_utility(1.0, [1.0], [1.0], 0.1)


@pytest.mark.parametrize("smoothing", [0.0, -0.1, float("nan")])
def test_a_smooth_form_without_smoothing_is_refused(smoothing: float) -> None:
    with pytest.raises(ConfigError, match=r"smoothing must be positive, got .*\. For 0 take chebyshev_utility"):
        smooth_chebyshev_utility([0, 0], [0.5, 0.5], ONE, NONE, smoothing)


def test_terms_below_0_are_refused() -> None:
    for terms in ({"smoothing": -1.0}, {"augmentation": -1.0}, {"smoothing": float("nan")}):
        with pytest.raises(ConfigError, match="smoothing and augmentation must not be negative, got"):
            chebyshev_slopes([0, 0], [0.5, 0.5], ONE, NONE, **terms)
    with pytest.raises(ConfigError, match=r"must not be negative, got 0\.0 and -0\.1\. Write 0"):
        augmented_chebyshev_utility([0, 0], [0.5, 0.5], ONE, NONE, -0.1)


def test_thresholds_that_are_not_one_per_objective_or_no_numbers_are_refused_everywhere() -> None:
    """One threshold for two objectives, or two for one, would be repeated."""
    given = [
        lambda limits, beyond: bent_scores([0.5, 0.5], limits, beyond),
        lambda limits, beyond: threshold_utility([0.5, 0.5], [0.5, 0.5], limits, beyond),
        lambda limits, beyond: threshold_slopes([0.5, 0.5], [0.5, 0.5], limits, beyond),
        lambda limits, beyond: best_threshold(np.eye(2), [0.5, 0.5], limits, beyond),
    ]
    for call in given:
        for limits in ([0.5], 0.5, [0.5] * 3):
            with pytest.raises(ShapeError, match=r"thresholds must be one per objective \(2\), got shape"):
                call(limits, 0.1)
        with pytest.raises(NonFiniteError, match="thresholds must be finite, got"):
            call([0.5, np.nan], 0.1)
        for beyond in (-0.1, 1.1, np.nan):
            with pytest.raises(ConfigError, match="beyond must be from 0 to 1, got"):
                call([0.5, 0.5], beyond)
    with pytest.raises(PreferenceError, match=r"preference must have one entry per objective \(2\)"):
        threshold_slopes([0.5, 0.5], [1.0], [0.5, 0.5], 0.1)


def test_slopes_of_a_preference_in_ratios_are_those_of_its_shares() -> None:
    for slopes in (
        lambda wanted: chebyshev_slopes([0.5, 0.5], wanted, ONE, NONE),
        lambda wanted: threshold_slopes([0.5, 0.1], wanted, [0.2, 0.2], 0.1),
    ):
        np.testing.assert_allclose(slopes([3, 1]), slopes([0.75, 0.25]))


def test_a_front_without_a_best_mixture_is_refused() -> None:
    bests = (
        lambda front: best_chebyshev(front, [0.5, 0.5], ONE, NONE),
        lambda front: best_threshold(front, [0.5, 0.5], [0.5, 0.5], 0.1),
    )
    for best in bests:
        with pytest.raises(ShapeError, match="front must have at least one row, got none"):
            best(np.zeros((0, 2)))
        with pytest.raises(ShapeError, match="front must have one row a solution"):
            best([0.5, 0.5])
        with pytest.raises(NonFiniteError, match="front must be finite"):
            best([[0.5, np.nan]])
