"""Which score vectors no other one dominates."""

from __future__ import annotations

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

from paretune.core.errors import NonFiniteError, ShapeError


def non_dominated(scores: ArrayLike) -> NDArray[np.bool_]:
    """Mark the score vectors that no other one dominates.

    One vector dominates another if it is at least as high in every objective and higher in one.

    Args:
        scores: `[N, K]`, higher is better.

    Returns:
        Mask `[N]`. Equal vectors are kept all or none: dropping one would drop a policy for its place in the list.

    Raises:
        ShapeError: If there are not two dimensions.
        NonFiniteError: If a score is NaN or infinite; a NaN would silently count as dominated.

    Example:
        >>> non_dominated([[1, 0], [0, 1], [0, 0.5]]).tolist()
        [True, True, False]
    """
    points = check_scores(scores)
    if len(points) == 0:
        return np.zeros(0, dtype=np.bool_)
    if points.shape[1] == 1:
        return np.asarray(points[:, 0] == points.max())
    return np.asarray(moocore.is_nondominated(points, maximise=True, keep_weakly=True), dtype=np.bool_)


def front(scores: ArrayLike) -> NDArray[np.float64]:
    """Return the non-dominated rows of `scores`, in their order, `[N', K]`.

    Raises:
        ShapeError: If there are not two dimensions.
        NonFiniteError: If a score is NaN or infinite.
    """
    points = check_scores(scores)
    return np.asarray(points[non_dominated(points)])


def check_scores(scores: ArrayLike) -> NDArray[np.float64]:
    """Return scores as finite `[N, K]`.

    Raises:
        ShapeError: If there are not two dimensions, or no objective.
        NonFiniteError: If a score is NaN or infinite.
    """
    points = np.asarray(scores, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] == 0:
        raise ShapeError(f"scores must have one row a solution and one column an objective, got {list(points.shape)}.")
    if not np.isfinite(points).all():
        row = int(np.flatnonzero(~np.isfinite(points).all(axis=1))[0])
        raise NonFiniteError(f"scores must be finite, got {points[row].tolist()} in row {row}. Leave such rows out.")
    return points
