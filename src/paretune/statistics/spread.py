"""How much a few seeds differ: standard deviation and coefficient of variation, each with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from paretune.core.errors import ShapeError
from paretune.statistics.intervals import check_confidence, finite_values, mean_interval


@dataclass(frozen=True)
class Spread:
    """A measure of spread and, where it can be told, its confidence interval.

    Attributes:
        value: The measure; None where it has no meaning.
        low: Lower end, or None.
        high: Upper end, or None.
        reason: Why there is no value, or no interval; else which rule gave the ends.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""


def standard_deviation(values: ArrayLike, confidence: float = 0.95) -> Spread:
    """Return the standard deviation over seeds with its interval.

    The interval is exact where seeds are normally distributed. Where extremes are more common than that it is too
    narrow: under Student's t with 4 degrees of freedom it covers 92 % at 3 seeds and 89 % at 5.

    Args:
        values: One a seed, `[S]`, at least two.
        confidence: Coverage, between 0 and 1.

    Raises:
        ShapeError: If there are fewer than two values.
        NonFiniteError: If a value is NaN or infinite.
        ConfigError: If `confidence` is not between 0 and 1.

    Source:
        Fisher 1925: `(n - 1) s^2 / sigma^2` is chi-square with n - 1 degrees of freedom.

    Example:
        >>> found = standard_deviation([0.4, 0.5, 0.6])
        >>> round(found.value, 3), round(found.low, 3), round(found.high, 3)
        (0.1, 0.052, 0.628)
    """
    sample = _several(values)
    low, high = _chi_squares(len(sample), confidence)
    sd, freedom = float(sample.std(ddof=1)), len(sample) - 1
    method = f"chi-square interval over {len(sample)} values"
    return Spread(sd, sd * math.sqrt(freedom / high), sd * math.sqrt(freedom / low), method)


def coefficient_of_variation(values: ArrayLike, confidence: float = 0.95) -> Spread:
    """Return the standard deviation as a share of the mean's size, with its interval.

    It has a meaning only where the mean is told from 0: around 0 the share is as large as one likes, and says nothing.

    Args:
        values: One a seed, `[S]`, at least two.
        confidence: Coverage, between 0 and 1.

    Returns:
        The coefficient; without a value where the mean's own interval includes 0. With few seeds that differ much there
        is no upper end: at 3 seeds from .28 on.

    Raises:
        ShapeError: If there are fewer than two values.
        NonFiniteError: If a value is NaN or infinite.
        ConfigError: If `confidence` is not between 0 and 1.

    Source:
        Vangel 1996, Confidence intervals for a normal coefficient of variation (the modified McKay interval). In
        simulations with 3 to 20 normal seeds and coefficients up to .33 it covered 95 %.

    Example:
        >>> found = coefficient_of_variation([0.9, 1.0, 1.1])
        >>> round(found.value, 3), round(found.low, 3), round(found.high, 3)
        (0.1, 0.052, 0.672)
        >>> coefficient_of_variation([-1, 0, 1.5]).reason
        'the mean, 0.167, cannot be told from 0'
    """
    sample = _several(values)
    around = mean_interval(sample, confidence)
    if around.low is None or around.high is None or around.low <= 0 <= around.high:
        return Spread(None, reason=f"the mean, {around.mean:.3g}, cannot be told from 0")
    count = len(sample)
    share = float(sample.std(ddof=1)) / abs(around.mean)
    low, high = (
        (chi + 2) / count * share**2 - share**2 + chi / (count - 1) for chi in _chi_squares(count, confidence)[::-1]
    )
    if high <= 0:
        return Spread(share, reason=f"no interval: {count} seeds that differ so much set no upper end")
    method = f"modified McKay interval over {count} values"
    return Spread(share, share / math.sqrt(low), share / math.sqrt(high), method)


def _several(values: ArrayLike) -> NDArray[np.float64]:
    sample = finite_values(values, "values")
    if len(sample) < 2:
        raise ShapeError("values must be at least two, got one. A single seed shows no spread.")
    return sample


def _chi_squares(count: int, confidence: float) -> tuple[float, float]:
    """Return the quantiles of chi-square between which so many seeds' variance lies."""
    check_confidence(confidence)
    tail = (1 - confidence) / 2
    return float(special.chdtri(count - 1, 1 - tail)), float(special.chdtri(count - 1, tail))
