"""Which points of a reference set a set of solutions recovers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from paretune.core.errors import ConfigError
from paretune.pareto.front import check_scores, check_some_scores, front

ROUNDING = 1e-12  # .4 - .3 is more than .1 in the last bit


@dataclass(frozen=True)
class Coverage:
    """How well a front and a reference set match.

    Attributes:
        precision: Share of the front's points that lie at a reference point; None where the front is empty.
        recall: Share of the reference points at which a point of the front lies.
        f1: Harmonic mean of the two; 0 where nothing is recovered.
        tolerance: Largest difference in each objective at which two points count as one, `[K]`.
    """

    precision: float | None
    recall: float
    f1: float
    tolerance: tuple[float, ...]


def coverage(scores: ArrayLike, reference_set: ArrayLike, tolerance: ArrayLike) -> Coverage:
    """Return precision, recall and F1 of the recovered reference points.

    Args:
        scores: `[N, K]`, higher is better; dominated rows do not count.
        reference_set: `[R, K]`.
        tolerance: Largest difference in each objective at which two points count as one: one number, or `[K]`. State it
            with every result, and choose it above the evaluation noise.

    Raises:
        ShapeError: If the reference set is empty, or the shapes disagree.
        NonFiniteError: If a score is NaN or infinite.
        ConfigError: If the tolerance is negative, not finite, or has another length.

    Source:
        Yang, Sun and Narasimhan 2019, A generalized algorithm for multi-objective reinforcement learning, coverage
        ratio.

    Departures:
        The tolerance is absolute and holds for each objective, as a relative one has no meaning near 0; precision
        counts points of the front and recall points of the reference set, where the published code averages the two
        counts.

    Example:
        >>> coverage([[1, 0], [0.5, 0.5]], [[1, 0], [0, 1]], tolerance=0.1)
        Coverage(precision=0.5, recall=0.5, f1=0.5, tolerance=(0.1, 0.1))
    """
    references = check_some_scores(reference_set, "reference_set")
    objectives = references.shape[1]
    limits = np.asarray(tolerance, dtype=np.float64)
    if limits.shape not in ((), (objectives,)) or not np.isfinite(limits).all() or (limits < 0).any():
        raise ConfigError(
            f"tolerance must be one number or one per objective ({objectives}), none negative, got {limits.tolist()}. "
            "Choose it above the evaluation noise."
        )
    limits = np.broadcast_to(limits, (objectives,))
    stated = tuple(float(limit) for limit in limits)
    points = check_scores(scores)
    if len(points) == 0:
        return Coverage(None, 0.0, 0.0, stated)
    points = front(check_some_scores(points, objectives=objectives))
    same = (np.abs(points[:, None] - references[None]) <= limits + ROUNDING).all(axis=2)  # [N', R]
    precision, recall = float(np.any(same, axis=1).mean()), float(np.any(same, axis=0).mean())
    f1 = 2 * precision * recall / (precision + recall) if same.any() else 0.0
    return Coverage(precision, recall, f1, stated)
