"""What most seeds reach, and what only the best do: attainment surfaces of sets of scores in two objectives."""

from __future__ import annotations

import math
from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

from paretune.core.errors import ConfigError, ShapeError
from paretune.pareto.front import check_reference_point, check_scores

SHARES = (0.1, 0.5, 0.9)  # the best seeds, the median seed, nearly all seeds


def seeds_attaining(share: float, seeds: int) -> int:
    """Return of how many seeds a surface is: the least whole number that is at least a share of them.

    With few seeds several shares fall together or on the extremes: of 5 seeds, 10 % is what the best one attains, 50 %
    what any 3 do, 90 % what all 5 do. Say which it is where a surface is drawn.

    Args:
        share: Above 0, at most 1.
        seeds: At least one.

    Raises:
        ConfigError: If the share or the number of seeds is out of range.

    Example:
        >>> [seeds_attaining(share, 5) for share in SHARES], [seeds_attaining(share, 20) for share in SHARES]
        ([1, 3, 5], [2, 10, 18])
    """
    if not 0 < share <= 1:
        raise ConfigError(f"share must be above 0 and at most 1, got {share:g}. Write 50 % as 0.5.")
    if seeds < 1:
        raise ConfigError(f"seeds must be at least 1, got {seeds}. Give the points of one seed or more.")
    return max(1, math.ceil(share * seeds - 1e-9))  # 0.07 * 100 is a little above 7


def attainment_surface(points: Sequence[ArrayLike], share: float, reference_point: ArrayLike) -> NDArray[np.float64]:
    """Return the edge of what at least a share of the seeds attain, as the corners of a staircase to draw.

    A seed attains a pair of scores if one of its points is at least as high in both objectives. The edge is a staircase
    and no straight line between points, which nobody measured.

    Args:
        points: One set of scores a seed, `[N, 2]` each, higher is better; seeds may have different numbers of them, and
            one without any counts as a seed that attains nothing.
        share: Of the seeds, above 0; see `seeds_attaining`.
        reference_point: `[2]`; what is not above it in both objectives is left out.

    Returns:
        Corners `[M, 2]` from the left edge, where the first objective is that of the reference point, to the lower one:
        the first objective rises, the second falls, and every step is level or upright. None, `[0, 2]`, where that
        share attains nothing above the reference point.

    Raises:
        ShapeError: If there is no seed, or a set has not two objectives.
        NonFiniteError: If a score is NaN or infinite.
        ConfigError: If the share is out of range.

    Source:
        Fonseca and Fleming 1996, On the performance assessment and comparison of stochastic multiobjective optimizers;
        Lopez-Ibanez, Paquete and Stuetzle 2010; computed by moocore.

    Example:
        >>> attainment_surface([[[1, 2]], [[2, 1]]], 0.5, [0, 0]).tolist()  # either of the two seeds
        [[0.0, 2.0], [1.0, 2.0], [1.0, 1.0], [2.0, 1.0], [2.0, 0.0]]
        >>> attainment_surface([[[1, 2]], [[2, 1]]], 1.0, [0, 0]).tolist()  # both
        [[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]]
    """
    if len(points) == 0:
        raise ShapeError("points must have one set a seed, got none. Leave out methods without a seed.")
    corner = check_reference_point(reference_point, 2)
    sets = [_pairs(each) for each in points]
    count, some = seeds_attaining(share, len(sets)), [each for each in sets if len(each)]
    if count > len(some):
        return np.zeros((0, 2))
    seeds = np.repeat(np.arange(len(some)), [len(each) for each in some])
    level = 100 * (count - 0.5) / len(some)  # rounded up to whole seeds there; half a seed less is safe from rounding
    edge = -moocore.eaf(-np.concatenate(some), seeds, percentiles=[level])[:, :2]  # it takes lower as better
    edge = edge[(edge > corner).all(axis=1)]
    if len(edge) == 0:
        return np.zeros((0, 2))
    first, second = edge[np.argsort(edge[:, 0])].T  # the second falls: no point of an edge dominates another
    across = np.repeat(np.append(corner[0], first), 2)[1:]
    down = np.repeat(np.append(second, corner[1]), 2)[:-1]
    return np.stack([across, down], axis=1)


def _pairs(points: ArrayLike) -> NDArray[np.float64]:
    scores = check_scores(points, "points")
    if scores.shape[1] != 2:
        raise ShapeError(f"points must have two objectives, got {scores.shape[1]}. Choose two of them to draw.")
    return scores
