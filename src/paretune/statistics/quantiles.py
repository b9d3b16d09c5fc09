"""The interval of a median, and of a quantile beyond what was seen."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from paretune.core.errors import ConfigError
from paretune.statistics.intervals import check_confidence, finite_values


class Quantile(NamedTuple):
    """A quantile and, where there are enough values, its confidence interval.

    Attributes:
        value: The quantile.
        low: Lower end, or None.
        high: Upper end, or None.
    """

    value: float
    low: float | None
    high: float | None


def median_interval(values: ArrayLike, confidence: float = 0.95) -> Quantile:
    """Return the median with the interval between two of the values, whatever they are distributed like.

    The number of values below the true median is binomial with chance 1/2. So the k-th smallest and the k-th largest
    value miss it with twice the chance of fewer than k; k is the largest that keeps the confidence. At 95 % the ends
    are the least and the greatest of 6 to 8 values, the second of 9 to 11; 5 values allow no interval.

    Args:
        values: Independent draws, `[n]`.
        confidence: Coverage, between 0 and 1.

    Raises:
        ShapeError: If there is no value, or there are more than one dimension.
        NonFiniteError: If a value is NaN or infinite.
        ConfigError: If `confidence` is not between 0 and 1.

    Source:
        Thompson 1936, On confidence ranges for the median.

    Example:
        >>> median_interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0])
        Quantile(value=3.5, low=1.0, high=6.0)
    """
    sample = np.sort(finite_values(values, "values"))
    check_confidence(confidence)
    counts = np.arange((len(sample) + 1) // 2)  # of values below the median
    place = int((special.bdtr(counts, len(sample), 0.5) <= (1 - confidence) / 2).sum())  # k
    median = float(np.median(sample))
    if place == 0:
        return Quantile(median, None, None)
    return Quantile(median, float(sample[place - 1]), float(sample[-place]))


def lognormal_quantile(values: ArrayLike, share: float, confidence: float = 0.95) -> Quantile:
    """Return a quantile of the log-normal distribution that positive values are drawn from, with its interval.

    It reaches beyond the values: their own .95 quantile needs 73 of them before its interval has an upper end. On the
    logarithms, `(quantile - mean) sqrt(n) / s` is noncentral t with n - 1 degrees of freedom, so the interval is exact
    where values are log-normal.

    Args:
        values: Independent draws, `[n]`, above 0.
        share: How much of the distribution lies below, between 0 and 1.
        confidence: Coverage, between 0 and 1.

    Raises:
        ShapeError: If there is no value, or there are more than one dimension.
        NonFiniteError: If a value is NaN or infinite.
        ConfigError: If a value is not above 0, or `share` or `confidence` is not between 0 and 1.

    Source:
        Johnson and Welch 1940, Applications of the non-central t-distribution.

    Example:
        >>> lognormal_quantile([1.0, 1.0, 1.0], 0.95)
        Quantile(value=1.0, low=1.0, high=1.0)
    """
    sample = finite_values(values, "values")
    check_confidence(confidence)
    if not (sample > 0).all() or not 0 < share < 1:
        raise ConfigError(
            f"values and share must be above 0, and share below 1, got {sample.min()} and {share}. Leave out what took "
            "no time; write 95 % as 0.95."
        )
    count, logs, normal = len(sample), np.log(sample), float(special.ndtri(share))
    if count == 1:
        return Quantile(float(sample[0]), None, None)
    mean, spread = float(logs.mean()), float(logs.std(ddof=1))
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    factors = special.nctdtrit(count - 1, normal * np.sqrt(count), tails) / np.sqrt(count)
    value, low, high = np.exp(mean + spread * np.array([normal, *factors]))
    return Quantile(float(value), float(low), float(high))
