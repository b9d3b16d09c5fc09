import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from paretune.core.errors import ConfigError, NonFiniteError, ShapeError
from paretune.statistics.intervals import mean_interval

values = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8)


def test_interval_of_three_values_matches_the_table():
    # mean 2, sd 1, standard error 1/sqrt(3); t for 2 degrees of freedom and 95 % is 4.302653 in every table
    interval = mean_interval([1.0, 2.0, 3.0])
    assert interval.mean == 2.0
    assert interval.high == pytest.approx(2 + 4.302653 / math.sqrt(3), abs=1e-6)  # six decimals of the table
    assert interval.low == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-6)
    assert (interval.count, interval.reason) == (3, "")


def test_two_values_reach_far():
    # sd of (0, 1) is sqrt(.5), standard error 1/2, t for 1 degree of freedom tan(.475 pi) = 12.7062
    assert mean_interval([0.0, 1.0]).high == pytest.approx(0.5 + 12.7062 / 2, abs=1e-4)


def test_one_value_has_no_interval_and_says_why():
    interval = mean_interval([0.3])
    assert (interval.mean, interval.low, interval.high) == (0.3, None, None)
    assert interval.reason == "one seed: no interval"


def test_equal_values_give_an_interval_of_no_width():
    interval = mean_interval([0.25, 0.25, 0.25])
    assert interval.low == interval.mean == interval.high == 0.25


@given(values)
def test_interval_agrees_with_scipy(sample):
    interval = mean_interval(sample)
    error = float(np.std(sample, ddof=1)) / math.sqrt(len(sample))
    if error > 1e-9:
        low, high = stats.t.interval(0.95, len(sample) - 1, loc=np.mean(sample), scale=error)
        assert interval.low == pytest.approx(low, rel=1e-9, abs=1e-9)  # same formula, other rounding
        assert interval.high == pytest.approx(high, rel=1e-9, abs=1e-9)


@given(values, st.randoms())
def test_order_of_seeds_does_not_matter(sample, random):
    shuffled = random.sample(sample, len(sample))
    first, second = mean_interval(sample), mean_interval(shuffled)
    assert first.low == pytest.approx(second.low, rel=1e-9, abs=1e-7)  # sums of up to 8 values of 1e3
    assert first.mean == pytest.approx(second.mean, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_interval_covers_the_true_mean_as_often_as_it_promises(seeds):
    # 2,000 draws: standard error of the coverage sqrt(.95 x .05 / 2000) = .0049; four of them is .0195
    samples = np.random.default_rng(7).normal(0.4, 0.1, size=(2000, seeds))
    intervals = [mean_interval(sample) for sample in samples]
    covered = np.mean([interval.low <= 0.4 <= interval.high for interval in intervals])
    assert abs(covered - 0.95) < 0.0195


@pytest.mark.parametrize("sample", [[0.1, float("nan")], [float("inf"), 0.0]])
def test_values_that_are_no_numbers_are_refused(sample):
    with pytest.raises(NonFiniteError, match="values must be finite"):
        mean_interval(sample)


@pytest.mark.parametrize("sample", [[], 0.5, [[1.0, 2.0]]])
def test_what_is_no_list_of_numbers_is_refused(sample):
    with pytest.raises(ShapeError, match="at least one number"):
        mean_interval(sample)


def test_confidence_in_percent_is_refused():
    with pytest.raises(ConfigError, match=r"got 95.*Write 95 % as 0.95"):
        mean_interval([0.1, 0.2], confidence=95)
