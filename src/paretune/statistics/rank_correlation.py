"""Whether two figures rise together: Spearman's rank correlation, as a number without an interval."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paretune.core.errors import ShapeError
from paretune.statistics.intervals import finite_values

FEWEST = 3  # points; two always rise or fall together


def rank_correlation(first: ArrayLike, second: ArrayLike) -> float | str:
    """Return Spearman's rank correlation, from -1 to 1, or why there is none.

    Args:
        first: `[N]`.
        second: `[N]`, of the same points.

    Returns:
        The correlation of mid-ranks; a few words where one of the two is constant, or there are fewer than 3 points.

    Raises:
        ShapeError: If the two have different lengths, or are empty.
        NonFiniteError: If a value is NaN or infinite.

    Source:
        Spearman 1904.

    Example:
        >>> rank_correlation([1, 2, 3, 4], [1, 4, 9, 9.5])
        1.0
        >>> rank_correlation([1, 2, 3], [5, 5, 5])
        'one of the two is constant'
    """
    one, other = finite_values(first, "first"), finite_values(second, "second")
    if len(one) != len(other):
        raise ShapeError(
            f"first and second must be of the same points, got {len(one)} and {len(other)}. Keep the points that have "
            "both."
        )
    if len(one) < FEWEST:
        return f"fewer than {FEWEST} points"
    x, y = (mid_ranks(each) - (len(one) + 1) / 2 for each in (one, other))
    if not x.any() or not y.any():
        return "one of the two is constant"
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1, 1))  # rounding may pass 1 by a bit


def mid_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks from 1, the lowest; equal values share the mean of their ranks, `[N]`.

    Example:
        >>> mid_ranks(np.array([0.5, 0.1, 0.5])).tolist()
        [2.5, 1.0, 2.5]
    """
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[places])
