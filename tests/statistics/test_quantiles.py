import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.core.errors import ConfigError, NonFiniteError, ShapeError
from paretune.statistics.quantiles import lognormal_quantile, median_interval


@pytest.mark.parametrize(("count", "place"), [(6, 1), (8, 1), (9, 2), (11, 2), (12, 3), (15, 4), (17, 5), (20, 6)])
def test_ends_are_the_values_that_tables_of_the_sign_test_name(count, place):
    # chance of fewer than k of n below the median, twice: n = 6, k = 1: 2/64 = .031; n = 8, k = 2: 2 * 9/256 = .070,
    # too much, so k = 1; n = 9, k = 2: 2 * 10/512 = .039; n = 20, k = 6: 2 * .0207 (published tables)
    values = np.random.default_rng(0).permutation(count) + 1.0  # 1 ... n
    found = median_interval(values)
    assert (found.low, found.high) == (place, count + 1 - place)
    assert found.value == (count + 1) / 2


def test_five_values_have_a_median_and_no_interval():
    # the least and the greatest of 5 miss the median with a chance of 2/32 > .05
    assert median_interval([5.0, 1.0, 2.0, 3.0, 4.0]) == (3.0, None, None)
    assert median_interval([5.0, 1.0, 2.0, 3.0, 4.0], confidence=0.9) == (3.0, 1.0, 5.0)


@pytest.mark.parametrize("count", [6, 9, 13, 20])
def test_interval_covers_the_median_of_a_skewed_distribution_as_often_as_it_says(count):
    draws = np.exp(np.random.default_rng(count).normal(size=(4000, count)))
    found = [median_interval(row) for row in draws]
    covered = np.mean([each.low <= 1.0 <= each.high for each in found])
    assert covered > 0.95 - 0.007  # two standard errors of 4,000 draws


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30))
def test_ends_lie_about_the_median(values):
    found = median_interval(values)
    assert found.low is None or found.low <= found.value <= found.high


def test_quantile_of_a_log_normal_distribution_is_that_of_its_fit():
    # logs -1, 0, 1: mean 0, sd 1, so the quantile is exp(1.6449); the tables of one-sided tolerance factors for 3
    # values and 95 % of the distribution give k = 10.553 at a confidence of .975 (7.656 at .95)
    found = lognormal_quantile(np.exp([-1.0, 0.0, 1.0]), 0.95, confidence=0.9)
    assert found.value == pytest.approx(math.exp(1.6448536))
    assert math.log(found.high) == pytest.approx(7.656, abs=1e-3)  # three decimals of the table


def test_interval_of_a_quantile_covers_it_as_often_as_it_says():
    draws = np.exp(0.3 * np.random.default_rng(0).normal(size=(2000, 6)))
    truth = math.exp(0.3 * 1.6448536)
    found = [lognormal_quantile(row, 0.95) for row in draws]
    covered = np.mean([each.low <= truth <= each.high for each in found])
    assert covered == pytest.approx(0.95, abs=0.015)  # three standard errors of 2,000 draws
    for missed in (np.mean([each.low > truth for each in found]), np.mean([each.high < truth for each in found])):
        assert missed == pytest.approx(0.025, abs=0.0105)  # each end by itself, within three standard errors


def test_median_of_the_fit_is_the_geometric_mean():
    assert lognormal_quantile([1.0, 4.0, 16.0], 0.5).value == pytest.approx(4.0)


def test_one_value_is_its_own_quantile_and_has_no_interval():
    assert lognormal_quantile([3.0], 0.95) == (3.0, None, None)
    assert median_interval([3.0]) == (3.0, None, None)


@pytest.mark.parametrize("of", [median_interval, lambda values: lognormal_quantile(values, 0.95)])
def test_no_values_and_values_that_are_none_are_refused(of):
    with pytest.raises(ShapeError, match="values must be a list of at least one number"):
        of([])
    with pytest.raises(NonFiniteError, match="values must be finite"):
        of([1.0, math.nan])


@pytest.mark.parametrize(("values", "share"), [([1.0, 0.0], 0.95), ([1.0, -1.0], 0.95), ([1.0, 2.0], 1.0)])
def test_log_normal_values_are_positive_and_a_share_is_below_one(values, share):
    with pytest.raises(ConfigError, match="values and share must be above 0, and share below 1"):
        lognormal_quantile(values, share)


def test_confidence_lies_between_none_and_all():
    with pytest.raises(ConfigError, match="confidence must lie between 0 and 1"):
        median_interval([1.0], 95)
