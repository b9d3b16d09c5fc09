"""Tie groups: methods that this many seeds cannot tell from the best of their group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paretune.core.errors import NonFiniteError, ShapeError
from paretune.statistics.intervals import check_confidence
from paretune.statistics.paired import paired_p_value


@dataclass(frozen=True)
class TieGroups:
    """Methods grouped from the best downwards.

    Attributes:
        groups: Indices of the methods in each group, by falling mean; the first of a group is its leader. A method
            whose seeds vary much may be in a higher group than one with a higher mean.
        reason: Why nothing could be told apart; empty when it could have been.
    """

    groups: tuple[tuple[int, ...], ...]
    reason: str = ""

    @property
    def ranks(self) -> tuple[int, ...]:
        """Rank of each method; members of a group share their leader's (1, 1, 3 for two tied, one below)."""
        ranks = [0] * sum(len(group) for group in self.groups)
        above = 0
        for group in self.groups:
            for method in group:
                ranks[method] = above + 1
            above += len(group)
        return tuple(ranks)


def tie_groups(values: ArrayLike, confidence: float = 0.95) -> TieGroups:
    """Group methods with their leader while the paired difference to it may be 0.

    The best method leads the first group, and all that cannot be told from it join. Of those left the best leads the
    next group. Anchoring at the leader keeps a long chain of small differences from becoming one tie. Differences to
    one leader are corrected together after Holm, over all methods not grouped yet.

    Args:
        values: Higher is better, one row a method and one column a seed, `[M, S]`; columns are paired.
        confidence: Of all comparisons with one leader together.

    Returns:
        The groups. One seed tells nothing apart: one group, and the reason. Equal means stay in the order given.

    Raises:
        ShapeError: If there are not two dimensions, or no seed.
        NonFiniteError: If a value is NaN or infinite.
        ConfigError: If `confidence` is not between 0 and 1.

    Source:
        Holm 1979, A simple sequentially rejective multiple test procedure.

    Example:
        >>> tie_groups([[0.50, 0.52, 0.51], [0.80, 0.81, 0.83]]).groups
        ((1,), (0,))
    """
    matrix = np.asarray(values, dtype=np.float64)
    check_confidence(confidence)
    if matrix.ndim != 2 or (len(matrix) > 0 and matrix.shape[1] == 0):
        raise ShapeError(
            f"values must have one row a method and one column a seed, got shape {list(matrix.shape)}. "
            "Give each method its value for every seed, and write one method as [[0.5, 0.6]]."
        )
    if not np.isfinite(matrix).all():
        raise NonFiniteError("values must be finite, got a NaN or infinity. Keep the seeds that every method has.")
    if len(matrix) == 0:
        return TieGroups(())
    order = [int(method) for method in np.argsort(-matrix.mean(axis=1), kind="stable")]
    if matrix.shape[1] == 1:
        return TieGroups((tuple(order),), "one seed: no difference can be told from chance")
    groups = []
    while order:
        leader, *others = order
        p_values = [paired_p_value(matrix[leader], matrix[other]) for other in others]
        differs = holm(np.array(p_values, dtype=np.float64), 1 - confidence)  # two seeds or more: no p-value is None
        groups.append((leader, *(other for other, different in zip(others, differs, strict=True) if not different)))
        order = [other for other, different in zip(others, differs, strict=True) if different]
    return TieGroups(tuple(groups))


def holm(p_values: ArrayLike, level: float) -> NDArray[np.bool_]:
    """Return which of several hypotheses are rejected at a family-wise error level.

    Args:
        p_values: One per hypothesis, `[H]`.
        level: Chance of one or more false rejections.

    Raises:
        ShapeError: If there is more than one dimension.
        NonFiniteError: If a p-value is NaN or not between 0 and 1.

    Source:
        Holm 1979: the i-th smallest of H p-values is compared with level / (H - i + 1), until one is too large.

    Example:
        >>> holm([0.04, 0.01], 0.05).tolist()
        [True, True]
    """
    sample, order = _sorted_p_values(p_values)
    limits = level / np.arange(len(sample), 0, -1)
    rejected = np.zeros(len(sample), dtype=np.bool_)
    rejected[order] = np.logical_and.accumulate(sample[order] <= limits)
    return rejected


def holm_adjusted(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return p-values adjusted for their number, `[H]`: `holm` rejects at a level those that are at most that level.

    Args:
        p_values: One per hypothesis, `[H]`.

    Raises:
        ShapeError: If there is more than one dimension.
        NonFiniteError: If a p-value is NaN or not between 0 and 1.

    Source:
        Holm 1979; the i-th smallest of H p-values times H - i + 1, at least as large as those before it, at most 1.

    Example:
        >>> holm_adjusted([0.04, 0.01]).tolist()
        [0.04, 0.02]
    """
    sample, order = _sorted_p_values(p_values)
    adjusted = np.empty(len(sample))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(sample[order] * np.arange(len(sample), 0, -1)))
    return adjusted


def _sorted_p_values(p_values: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    sample = np.asarray(p_values, dtype=np.float64)
    if sample.ndim != 1:
        raise ShapeError(f"p_values must be a list, got shape {list(sample.shape)}. Correct one family at a time.")
    if not ((sample >= 0) & (sample <= 1)).all():
        raise NonFiniteError(
            f"p_values must lie between 0 and 1, got {sample.tolist()}. Write 1 where no test was made."
        )
    return sample, np.argsort(sample, kind="stable")
