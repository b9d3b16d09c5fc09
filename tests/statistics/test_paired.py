import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from paretune.core.errors import NonFiniteError, ShapeError
from paretune.statistics.paired import paired_difference, paired_p_value

pairs = st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=2, max_size=6)


def test_difference_pairs_seeds():
    # differences 1, 2, 3 (mean 2, sd 1), although each method alone varies by 10 from seed to seed
    interval = paired_difference([11.0, 22.0, 33.0], [10.0, 20.0, 30.0])
    assert interval.mean == 2.0
    assert interval.low == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-6)


def test_p_value_of_three_differences_matches_the_closed_form():
    # t = 2 / (1/sqrt 3) = 2 sqrt 3; with 2 degrees of freedom p = 1 - t / sqrt(t^2 + 2) = 1 - sqrt(12/14)
    assert paired_p_value([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]) == pytest.approx(1 - math.sqrt(12 / 14), rel=1e-9)


def test_difference_says_how_it_was_made():
    assert paired_difference([1.0, 2.0], [0.0, 1.5]).method == "Student-t over 2 values"
    assert paired_difference(np.ones((3, 4)), np.zeros((3, 4))).method == "Student-t over 3 seed means"
    many = paired_difference(np.ones((20, 4)), np.zeros((20, 4)))
    assert many.method == "nested bootstrap over 20 seeds and 4 prompts"
    assert (many.low, many.mean, many.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("seeds", [5, 20])
def test_difference_pairs_seeds_and_prompts(seeds):
    # Seeds and prompts move both methods alike, by an sd of .3 each, and single scores by .01: the difference of .02
    # has a standard error of .01 sqrt(2) / sqrt(10 seeds), about .002. Unpaired it would be .3 sqrt(2 / seeds), above
    # .09.
    generator = np.random.default_rng(2)
    common = generator.normal(0, 0.3, size=(seeds, 1)) + generator.normal(0, 0.3, size=(1, 10))
    first, second = (common + shift + generator.normal(0, 0.01, size=(seeds, 10)) for shift in (0.02, 0.0))
    interval = paired_difference(first, second)
    assert 0.01 < interval.low < 0.02 < interval.high < 0.03


@pytest.mark.parametrize(("seeds", "repeats"), [(5, 400), (20, 100)])
def test_interval_of_the_difference_covers_it_where_pairs_share_noise(seeds, repeats):
    generator, covered = np.random.default_rng(3), []
    for _ in range(repeats):
        common = generator.normal(0, 0.2, size=(seeds, 1))
        first, second = (
            common + generator.normal(0, 0.05, size=(seeds, 1)) + generator.normal(0, 0.1, size=(seeds, 4))
            for _ in range(2)
        )
        interval = paired_difference(first + 0.1, second, generator=generator)
        covered.append(interval.low <= 0.1 <= interval.high)
    # within three standard errors of 95 %: .033 and .065
    assert np.mean(covered) >= 0.95 - 3 * (0.95 * 0.05 / repeats) ** 0.5


@given(pairs)
def test_p_value_is_small_exactly_where_the_interval_leaves_zero_out(rows):
    first, second = np.array(rows, dtype=float).T
    interval, p_value = paired_difference(first, second), paired_p_value(first, second)
    if abs(p_value - 0.05) > 1e-9:
        assert (p_value < 0.05) == (interval.low > 0 or interval.high < 0)


@given(pairs)
def test_p_value_agrees_with_scipy(rows):
    first, second = np.array(rows, dtype=float).T
    if np.ptp(first - second) > 0:
        assert paired_p_value(first, second) == pytest.approx(stats.ttest_rel(first, second).pvalue, rel=1e-9)


def test_same_difference_for_every_seed_is_certain_and_no_difference_is_none():
    assert paired_p_value([1.0, 2.0], [0.0, 1.0]) == 0.0
    assert paired_p_value([1.0, 2.0], [1.0, 2.0]) == 1.0


def test_differences_in_the_last_bit_are_none():
    assert paired_p_value([0.1 + 0.2, 0.1 + 0.7], [0.3, 0.8]) == 1.0
    assert paired_difference([0.1 + 0.2, 0.1 + 0.7], [0.3, 0.8]).high == 0.0


def test_one_seed_tells_nothing():
    assert paired_p_value([1.0], [0.0]) is None
    assert paired_difference([1.0], [0.0]).low is None


def test_different_seeds_are_refused():
    with pytest.raises(ShapeError, match=r"got 3 and 2\. Keep the seeds and prompts both have"):
        paired_difference([1.0, 2.0, 3.0], [1.0, 2.0])
    with pytest.raises(ShapeError, match=r"got 2 x 3 and 2 x 4\."):
        paired_difference(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(ShapeError, match="first must be a list"):
        paired_p_value(np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(NonFiniteError, match="second must be finite"):
        paired_p_value([1.0, 2.0], [1.0, float("nan")])
