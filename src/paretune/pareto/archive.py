"""An archive of measured policies: bounded, aware of noise, and blind to nobody who only measures like another one."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paretune.core.errors import ShapeError
from paretune.pareto.survival import dominance, survival_order


def archive_order(
    scores: ArrayLike,
    errors: ArrayLike,
    policies: Sequence[Hashable],
    rule: str = "hypervolume",
    doubt: float = 0.0,
) -> NDArray[np.int64]:
    """Return indices of all, those to keep first.

    First come different policies in the order of survival, then copies of them, then those without a score on every
    objective. Policies of equal scores are different ones as long as they are not the same policy: both stay while
    there is room, since what measures alike need not be alike.

    Args:
        scores: Means `[N, K]`, higher is better, each objective scaled to [0, 1]; NaN where there is none.
        errors: Their standard errors, `[N, K]`.
        policies: What tells them apart, `[N]`: equal values are one policy, the first of which counts.
        rule: `hypervolume` drops the least contributor again and again, `crowding` what lies closest together.
        doubt: Standard errors that count as noise, in dominance and contributions.

    Raises:
        ShapeError: If shapes disagree.
        UnknownNameError: If there is no such rule.

    Example:
        >>> archive_order([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]], np.zeros((3, 2)), ["a", "a", "b"]).tolist()
        [0, 2, 1]
    """
    points, noise = np.asarray(scores, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    if points.ndim != 2 or points.shape != noise.shape or len(policies) != len(points):
        raise ShapeError(
            f"scores, errors and policies must have one row each, got shapes {list(points.shape)}, "
            f"{list(noise.shape)} and {len(policies)} policies. Give every policy its own."
        )
    seen: set[Hashable] = set()
    known, copies, unknown = list[int](), list[int](), list[int]()
    for index, policy in enumerate(policies):
        if not (np.isfinite(points[index]).all() and np.isfinite(noise[index]).all()):
            unknown.append(index)
            continue
        (copies if policy in seen else known).append(index)
        seen.add(policy)
    order = survival_order(points[known], noise[known], rule, doubt)
    return np.asarray([*(known[place] for place in order), *copies, *unknown], dtype=np.int64)


def undominated(scores: ArrayLike, errors: ArrayLike, doubt: float = 0.0) -> NDArray[np.bool_]:
    """Mark those that no other one dominates beyond noise, `[N]`; equal vectors never dominate each other.

    Example:
        >>> undominated([[0.5, 0.5], [0.5, 0.4]], [[0.1, 0.1], [0.1, 0.1]], doubt=1).tolist()
        [True, True]
    """
    return np.asarray(~dominance(scores, errors, doubt).any(axis=0))
