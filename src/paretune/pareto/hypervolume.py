"""The volume a set of scores dominates above a reference point."""

from __future__ import annotations

import moocore
from numpy.typing import ArrayLike

from paretune.pareto.front import check_reference_point, check_scores


def hypervolume(scores: ArrayLike, reference_point: ArrayLike) -> float:
    """Return the volume of the union of boxes between the reference point and each score vector.

    Measured scores carry noise, and the union of boxes is a maximum: the more candidates, the higher it comes out by
    chance alone. Compare sets of equal size only, and call the figure naive. `polar.hypervolume_pair` measures what
    is left of it without that chance.

    Args:
        scores: `[N, K]`, higher is better.
        reference_point: Frozen in the task, `[K]`; never taken from results.

    Returns:
        The hypervolume. Points that are not above the reference point in every objective add 0; no points give 0.

    Raises:
        ShapeError: If the shapes disagree.
        NonFiniteError: If a score or the reference point is NaN or infinite.

    Source:
        Zitzler and Thiele 1998; computed exactly by moocore.

    Example:
        >>> hypervolume([[1, 2], [2, 1]], [0, 0])
        3.0
    """
    points = check_scores(scores)
    corner = check_reference_point(reference_point, points.shape[1])
    above = points[(points > corner).all(axis=1)]
    if len(above) == 0:
        return 0.0
    if len(corner) == 1:
        return float(above.max() - corner[0])
    return float(moocore.hypervolume(above, ref=corner, maximise=True))
