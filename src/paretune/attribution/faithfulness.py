"""Whether an attribution ranks parts as taking them away does."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paretune.core.errors import ShapeError

FloatArray = NDArray[np.float64]
DIGITS = 9  # numbers that are equal but for the order of a sum must not be ranked


def rank_correlation(first: ArrayLike, second: ArrayLike) -> float | None:
    """Return Spearman's rank correlation of two lists of numbers; ties share their mean rank.

    Returns:
        Between -1 and 1; None where either list has no two different numbers, or one that is not finite.

    Raises:
        ShapeError: If they are no lists of equally many numbers.

    Source:
        Spearman 1904.

    Example:
        >>> rank_correlation([0.1, 0.2, 0.9], [1, 2, 3]), rank_correlation([1, 1], [1, 2])
        (1.0, None)
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.ndim != 1 or one.shape != other.shape:
        raise ShapeError(
            f"first and second must be lists of equally many numbers, got {list(one.shape)} and {list(other.shape)}. "
            "Give both one number a part."
        )
    if len(one) < 2 or not (np.isfinite(one).all() and np.isfinite(other).all()):
        return None
    ranks = [_ranks(each) for each in (one, other)]
    centred = [each - each.mean() for each in ranks]
    spread = float(np.sqrt(np.square(centred[0]).sum() * np.square(centred[1]).sum()))
    return float(centred[0] @ centred[1] / spread) if spread > 0 else None


def pooled_rank_correlation(groups: Iterable[tuple[ArrayLike, ArrayLike]]) -> float | None:
    """Return the mean rank correlation of several groups of parts, each weighed by its size less one.

    Ranks are taken within a group, so that a group whose numbers are all larger, such as an objective that all experts
    serve, is not mistaken for agreement. A group that ranks nothing is left out.

    Returns:
        Between -1 and 1; None where no group ranks anything.

    Example:
        >>> pooled_rank_correlation([([1, 2], [10, 20]), ([1, 2, 3], [3, 2, 1])])  # 1 and -1, weighed 1 and 2
        -0.3333333333333333
    """
    found = [(np.size(first) - 1, rank_correlation(first, second)) for first, second in groups]
    known = [(weight, value) for weight, value in found if value is not None]
    total = sum(weight for weight, _ in known)
    return sum(weight * value for weight, value in known) / total if known else None


def _ranks(values: FloatArray) -> FloatArray:
    rounded = np.round(values, DIGITS)
    ordered = np.sort(rounded)
    below, upto = (np.searchsorted(ordered, rounded, side) for side in ("left", "right"))
    return np.asarray((below + upto + 1) / 2)
