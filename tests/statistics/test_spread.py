from __future__ import annotations

import numpy as np
import pytest

from paretune.core.errors import ConfigError, NonFiniteError, ShapeError
from paretune.statistics.spread import coefficient_of_variation, standard_deviation


def test_standard_deviation_with_the_quantiles_of_a_table() -> None:
    # deviations -1, 0, 1: s = 1. Chi-square with 2 degrees of freedom: .0506 and 7.378 (any table)
    found = standard_deviation([2.0, 3.0, 4.0])
    assert found.value == pytest.approx(1.0)
    assert found.low == pytest.approx(np.sqrt(2 / 7.378), rel=1e-4)
    assert found.high == pytest.approx(np.sqrt(2 / 0.050636), rel=1e-4)  # the table has five digits
    assert found.reason == "chi-square interval over 3 values"


def test_equal_seeds_do_not_vary() -> None:
    for spread in (standard_deviation([0.5] * 4), coefficient_of_variation([-0.5] * 4)):
        assert (spread.value, spread.low, spread.high) == (0.0, 0.0, 0.0)


def test_coefficient_is_a_share_of_the_size_of_the_mean_whatever_its_sign_and_unit() -> None:
    values = np.array([9.0, 10.0, 11.0])
    found = coefficient_of_variation(values)
    assert found.value == pytest.approx(0.1)
    for other in (coefficient_of_variation(-values), coefficient_of_variation(1000 * values)):
        assert (other.value, other.low, other.high) == pytest.approx((found.value, found.low, found.high))


def test_coefficient_has_no_meaning_where_the_mean_cannot_be_told_from_zero() -> None:
    # t of 3 seeds is 4.303: s = 1, so a mean of 4.303 / sqrt(3) = 2.4843 is the least that can
    found = coefficient_of_variation([1.48, 2.48, 3.48])
    assert (found.value, found.reason) == (None, "the mean, 2.48, cannot be told from 0")
    assert coefficient_of_variation([1.49, 2.49, 3.49]).value == pytest.approx(1 / 2.49)
    assert coefficient_of_variation([0.0, 0.0, 0.0]).value is None


def test_coefficient_of_three_seeds_that_differ_much_has_no_upper_end() -> None:
    # (.0506 + 2) / 3 - 1 = -.3165 times k^2, plus .0506 / 2: positive below k = .2829
    found = coefficient_of_variation([0.71, 1.0, 1.29])
    assert (found.value, found.low, found.high) == (pytest.approx(0.29), None, None)
    assert found.reason == "no interval: 3 seeds that differ so much set no upper end"
    assert coefficient_of_variation([0.72, 1.0, 1.28]).high is not None


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_intervals_cover_what_they_promise(seeds: int) -> None:
    """4,000 draws: three standard errors are .0103. Of 3 seeds one draw in a thousand sets no upper end."""
    drawn = np.random.default_rng(seeds).normal(1.0, 0.1, (4000, seeds))
    deviations = [standard_deviation(each) for each in drawn]
    coefficients = [coefficient_of_variation(each) for each in drawn]
    for spreads in (deviations, coefficients):
        covered = [each.low is None or each.low <= 0.1 <= each.high for each in spreads]
        assert np.mean(covered) == pytest.approx(0.95, abs=0.0103)


def test_refusals() -> None:
    for measure in (standard_deviation, coefficient_of_variation):
        with pytest.raises(ShapeError, match="values must be at least two, got one"):
            measure([0.5])
        with pytest.raises(NonFiniteError, match="values must be finite"):
            measure([0.5, np.nan])
        with pytest.raises(ConfigError, match="confidence must lie between 0 and 1"):
            measure([0.5, 0.6], 95)
