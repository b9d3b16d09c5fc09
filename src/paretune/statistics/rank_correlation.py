"""Whether two figures rise together: Spearman's rank correlation, as a number without an interval."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paretune.core.errors import ShapeError
from paretune.statistics.intervals import finite_values

FEWEST = 3  # points; two always rise or fall together
EQUAL = 9  # digits of the largest number of a group: what differs in later ones is rounding, and not to be ranked


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


def pooled_rank_correlation(groups: Iterable[tuple[ArrayLike, ArrayLike]]) -> float | str:
    """Return the mean rank correlation of several groups of points, each weighed by its size less one.

    Ranks are taken within a group, so that a group whose numbers are all larger is not mistaken for agreement. Numbers
    of a group that are equal but for rounding tie. Groups that rank nothing are left out: those of fewer than 3 points,
    with a constant, or with a value that is not finite.

    Args:
        groups: The two figures of each group's points, `[N]` each.

    Returns:
        Between -1 and 1; a few words on the first group where no group ranks anything.

    Raises:
        ShapeError: If the two figures of a group have different lengths, or are empty.

    Example:
        >>> pooled_rank_correlation([([1, 2, 3], [10, 20, 30]), ([1, 2, 3, 4, 5], [5, 4, 3, 2, 1])])  # 1 x 2 and -1 x 4
        -0.3333333333333333
        >>> pooled_rank_correlation([([1, 2], [1, 2])])
        'fewer than 3 points'
    """
    found: list[tuple[int, float]] = []
    reasons = []
    for each in groups:
        first, second = (np.asarray(values, dtype=np.float64) for values in each)
        if not (np.isfinite(first).all() and np.isfinite(second).all()):
            reasons.append("a value is missing")
            continue
        value = rank_correlation(_without_rounding(first), _without_rounding(second))
        if isinstance(value, str):
            reasons.append(value)
        else:
            found.append((len(first) - 1, value))
    if not found:
        return reasons[0] if reasons else "nothing to rank"
    return sum(weight * value for weight, value in found) / sum(weight for weight, _ in found)


def _without_rounding(values: NDArray[np.float64]) -> NDArray[np.float64]:
    largest = np.abs(values).max(initial=0.0)
    return np.round(values / largest, EQUAL) if largest > 0 else values


def mid_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks from 1, the lowest; equal values share the mean of their ranks, `[N]`.

    Example:
        >>> mid_ranks(np.array([0.5, 0.1, 0.5])).tolist()
        [2.5, 1.0, 2.5]
    """
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[places])
