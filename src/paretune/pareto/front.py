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


def check_scores(scores: ArrayLike, name: str = "scores") -> NDArray[np.float64]:
    """Return scores as finite `[N, K]`.

    Args:
        scores: One row a solution and one column an objective.
        name: What the caller calls them, for the error.

    Raises:
        ShapeError: If there are not two dimensions, or no objective.
        NonFiniteError: If a score is NaN or infinite.
    """
    points = np.asarray(scores, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] == 0:
        raise ShapeError(
            f"{name} must have one row a solution and one column an objective, got shape {list(points.shape)}. "
            "Write a single solution as [[0.4, 0.6]]."
        )
    if not np.isfinite(points).all():
        row = int(np.flatnonzero(~np.isfinite(points).all(axis=1))[0])
        raise NonFiniteError(f"{name} must be finite, got {points[row].tolist()} in row {row}. Leave such rows out.")
    return points


def check_some_scores(scores: ArrayLike, name: str = "scores", objectives: int | None = None) -> NDArray[np.float64]:
    """Return scores as finite `[N, K]` with at least one row.

    Args:
        scores: One row a solution and one column an objective.
        name: What the caller calls them, for the error.
        objectives: The K they must have; any if None.

    Raises:
        ShapeError: If there are not two dimensions, no row, no objective, or not K of them.
        NonFiniteError: If a score is NaN or infinite.
    """
    points = check_scores(scores, name)
    if len(points) == 0:
        raise ShapeError(f"{name} must have at least one row, got none. Of an empty set this figure does not exist.")
    if objectives is not None and points.shape[1] != objectives:
        raise ShapeError(
            f"{name} must have one column per objective ({objectives}), got {points.shape[1]}. "
            "Score both sets on the same objectives."
        )
    return points


def check_reference_point(reference_point: ArrayLike, objectives: int) -> NDArray[np.float64]:
    """Return a reference point as finite `[K]`.

    Raises:
        ShapeError: If there is not one entry per objective.
        NonFiniteError: If an entry is NaN or infinite.
    """
    corner = np.asarray(reference_point, dtype=np.float64)
    if corner.shape != (objectives,):
        raise ShapeError(
            f"reference_point must have one entry per objective ({objectives}), got shape {list(corner.shape)}. "
            "Give the lowest score that counts in each objective."
        )
    if not np.isfinite(corner).all():
        raise NonFiniteError(f"reference_point must be finite, got {corner.tolist()}. Set it in the task.")
    return corner
