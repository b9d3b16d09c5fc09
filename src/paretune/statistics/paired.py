"""Differences between two methods, seed by seed: what both owe to the seed cancels."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from paretune.core.errors import ShapeError
from paretune.statistics.intervals import Interval, finite_values, mean_interval


def paired_difference(first: ArrayLike, second: ArrayLike, confidence: float = 0.95) -> Interval:
    """Return the mean of `first - second` over seeds with its Student-t interval.

    Args:
        first: One value per seed, `[S]`.
        second: The other method's, for the same seeds in the same order, `[S]`.
        confidence: Coverage, between 0 and 1.

    Raises:
        ShapeError: If the two have different lengths or are empty.
        NonFiniteError: If a value is NaN or infinite.

    Example:
        >>> paired_difference([0.5, 0.75], [0.25, 0.5])
        Interval(mean=0.25, low=0.25, high=0.25, count=2, reason='')
    """
    return mean_interval(_differences(first, second), confidence)


def paired_p_value(first: ArrayLike, second: ArrayLike) -> float | None:
    """Return the two-sided p-value of the paired t-test, or None with one seed.

    It is below `1 - confidence` exactly where the interval of `paired_difference` leaves 0 out.

    Args:
        first: One value per seed, `[S]`.
        second: The other method's, for the same seeds in the same order, `[S]`.

    Raises:
        ShapeError: If the two have different lengths or are empty.
        NonFiniteError: If a value is NaN or infinite.
    """
    differences = _differences(first, second)
    count = len(differences)
    if count == 1:
        return None
    mean = float(differences.mean())
    error = float(differences.std(ddof=1) / np.sqrt(count))
    if error == 0:  # the same difference for every seed
        return 1.0 if mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(mean) / error, count - 1))


def _differences(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    left, right = finite_values(first, "first"), finite_values(second, "second")
    if left.shape != right.shape:
        raise ShapeError(
            f"first and second must have one value for each of the same seeds, got {len(left)} and {len(right)}. "
            "Keep the seeds both have."
        )
    return np.asarray(left - right)
