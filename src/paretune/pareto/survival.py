"""Which of measured policies to keep: ranks by dominance, then hypervolume contributions or crowding."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paretune.core.checks import check_choice
from paretune.core.errors import ShapeError
from paretune.pareto.front import check_scores
from paretune.pareto.hypervolume import hypervolume

RULES = ("hypervolume", "crowding")
DIGITS = 12  # contributions that differ in their last bits only are ties


def dominance(scores: ArrayLike, errors: ArrayLike, doubt: float = 0.0) -> NDArray[np.bool_]:
    """Tell which measured score vector dominates which, beyond noise.

    Row i dominates row j if it is at least as high in every objective, and in one of them higher by more than `doubt`
    standard errors of the difference. Equal vectors never dominate each other.

    Args:
        scores: Means `[N, K]`, higher is better.
        errors: Their standard errors, `[N, K]`.
        doubt: 0 takes means as they are.

    Returns:
        `[N, N]`, true where the row dominates the column; without cycles, as it implies dominance of the means.

    Raises:
        ShapeError: If shapes disagree.
        NonFiniteError: If a score or an error is NaN or infinite.

    Example:
        >>> dominance([[0.5, 0.6], [0.5, 0.5]], [[0.1, 0.1], [0.1, 0.1]]).tolist()
        [[False, True], [False, False]]
        >>> bool(dominance([[0.5, 0.6], [0.5, 0.5]], [[0.1, 0.1], [0.1, 0.1]], doubt=1).any())
        False
    """
    points, noise = _measured(scores, errors)
    gain = points[:, None, :] - points[None, :, :]  # [N, N, K]
    unsure = doubt * np.sqrt(noise[:, None, :] ** 2 + noise[None, :, :] ** 2)
    return np.asarray((gain >= 0).all(axis=2) & (gain > unsure).any(axis=2))


def ranks(dominates: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Sort into fronts: rank 0 is dominated by none, rank 1 by rank 0 alone, and so on.

    Args:
        dominates: `[N, N]` without cycles, see `dominance`.

    Source:
        Deb et al. 2002 (NSGA-II), non-dominated sorting.
    """
    found = np.full(len(dominates), -1, dtype=np.int64)
    rank = 0
    while (found < 0).any():
        left = found < 0
        found[left & ~dominates[left].any(axis=0)] = rank
        rank += 1
    return found


def contributions(
    scores: ArrayLike, errors: ArrayLike, reference_point: ArrayLike, doubt: float = 0.0
) -> NDArray[np.float64]:
    """Return how much hypervolume each would add to the others if its scores were `doubt` standard errors higher.

    So what is measured badly has the benefit of the doubt. Without it (0) these are exclusive contributions: of equal
    vectors, and of dominated ones, they are 0.

    Args:
        scores: Means `[N, K]`, higher is better.
        errors: Their standard errors, `[N, K]`.
        reference_point: Lowest score that counts, `[K]`.
        doubt: In standard errors.

    Returns:
        `[N]`.

    Raises:
        ShapeError: If shapes disagree.
        NonFiniteError: If a score or an error is NaN or infinite.

    Source:
        Beume et al. 2007 (SMS-EMOA), for doubt 0.
    """
    points, noise = _measured(scores, errors)
    gains = []
    for index in range(len(points)):
        others = np.delete(points, index, axis=0)
        hopeful = points[index] + doubt * noise[index]
        gains.append(hypervolume(np.vstack([others, hopeful]), reference_point) - hypervolume(others, reference_point))
    return np.asarray(gains, dtype=np.float64)


def crowding(scores: ArrayLike) -> NDArray[np.float64]:
    """Return crowding distances `[N]`: how far apart a vector's neighbours are, infinite at the ends.

    Of several vectors at one end, one alone counts as the end.

    Source:
        Deb et al. 2002 (NSGA-II).

    Example:
        >>> crowding([[0, 4], [1, 3], [4, 0]]).tolist()
        [inf, 2.0, inf]
    """
    points = check_scores(scores)
    distance = np.zeros(len(points))
    for column in points.T:
        order = np.argsort(column, kind="stable")
        span = float(np.ptp(column)) if len(column) else 0.0
        if span > 0:
            distance[order[[0, -1]]] = np.inf
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return distance


def survival_order(
    scores: ArrayLike, errors: ArrayLike, rule: str = "hypervolume", doubt: float = 0.0
) -> NDArray[np.int64]:
    """Return indices of all, those to keep first.

    Lower ranks come first. Within a rank: `hypervolume` drops the least contributor again and again, `crowding` drops
    what lies closest together. Of ties the later one is dropped.

    Contributions are taken above the lowest scores of the rank less 1, and not above a task's reference point: there,
    the best policy for one objective alone counts nothing where its other scores are at their lowest.

    Args:
        scores: Means `[N, K]`, higher is better, each objective scaled to [0, 1].
        errors: Their standard errors, `[N, K]`.
        rule: `hypervolume` (SMS-EMOA) or `crowding` (NSGA-II).
        doubt: Standard errors that count as noise, in dominance and contributions.

    Raises:
        UnknownNameError: If there is no such rule.
        ShapeError: If shapes disagree.
        NonFiniteError: If a score or an error is NaN or infinite.

    Source:
        Beume et al. 2007 (SMS-EMOA); Deb et al. 2002 (NSGA-II).
    """
    check_choice("survival", rule, RULES)
    points, noise = _measured(scores, errors)
    rank = ranks(dominance(points, noise, doubt))
    order: list[int] = []
    for level in range(int(rank.max(initial=-1)) + 1):
        front = [int(index) for index in np.flatnonzero(rank == level)]
        if rule == "crowding":
            order += [front[place] for place in np.argsort(-crowding(points[front]).round(DIGITS), kind="stable")]
            continue
        corner, dropped = points[front].min(axis=0) - 1, []
        while front:
            gains = contributions(points[front], noise[front], corner, doubt).round(DIGITS)
            dropped.append(front.pop(len(front) - 1 - int(gains[::-1].argmin())))
        order += dropped[::-1]
    return np.asarray(order, dtype=np.int64)


def _measured(scores: ArrayLike, errors: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    points, noise = check_scores(scores), check_scores(errors, "errors")
    if points.shape != noise.shape:
        raise ShapeError(
            f"errors must be one per score {list(points.shape)}, got shape {list(noise.shape)}. Give each mean its own."
        )
    return points, noise
