"""Whether methods differ in the same way on every kind of task: a permutation test over instances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paretune.core.errors import NonFiniteError, ShapeError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Interaction:
    """How far differences between methods depend on the kind of task.

    Attributes:
        share: Part of the variance of methods within instances that kinds explain, 0 to 1; None where there is none.
        p_value: Chance of a share so large where kinds make no difference; None with the reason.
        reason: Why there is no p-value.
    """

    share: float | None
    p_value: float | None
    reason: str = ""


def interaction(kinds: Sequence[ArrayLike], permutations: int = 9_999, seed: int = 0) -> Interaction:
    """Test whether the differences between methods are those of one kind of task on every other kind.

    Within each instance, values are taken relative to the mean over methods, so that hard and easy instances do not
    count. Where kinds make no difference, instances can change kinds: the share of variance that the kinds' means
    explain is compared with the shares after instances were dealt out anew.

    Args:
        kinds: One array a kind of task, `[S, M]`: S instances, the same M methods everywhere.
        permutations: How often instances are dealt out.
        seed: Of the dealing.

    Returns:
        The share and its p-value, `(1 + at least as large) / (1 + permutations)`. Missing, with the reason, with fewer
        than two kinds or methods, or one instance of each kind.

    Raises:
        ShapeError: If kinds differ in the number of methods.
        NonFiniteError: If a value is NaN or infinite.

    Source:
        Anderson and ter Braak 2003, permutation tests of interactions, reduced-model residuals.

    Example:
        >>> alike = [[[1.0, 2.0], [3.0, 4.1]], [[5.0, 6.0], [0.0, 1.1]]]
        >>> interaction(alike).p_value > 0.3
        True
    """
    arrays = [np.atleast_2d(np.asarray(each, dtype=np.float64)) for each in kinds]
    if len({each.shape[1] for each in arrays}) > 1:
        raise ShapeError(
            f"kinds must have the same methods, got {[each.shape[1] for each in arrays]} of them. Leave out the "
            "methods that some kind lacks."
        )
    if not all(np.isfinite(each).all() for each in arrays):
        raise NonFiniteError("kinds must be finite, got a NaN or infinity. Leave out the instances that lack a value.")
    counts = [len(each) for each in arrays]
    if len(arrays) < 2 or arrays[0].shape[1] < 2:
        return Interaction(None, None, "an interaction needs two kinds of task and two methods")
    if max(counts) < 2:
        return Interaction(None, None, "one instance of each kind: nothing tells a difference of kinds from chance")
    values = np.concatenate(arrays)
    relative = values - values.mean(axis=1, keepdims=True)
    relative -= relative.mean(axis=0)
    total = float((relative**2).sum())
    if total <= 1e-24 * max(1.0, float((values**2).sum())):
        return Interaction(None, None, "methods differ by the same amount on every instance")
    of = np.repeat(np.arange(len(arrays)), counts)
    share = _explained(relative, of, counts) / total
    generator = np.random.default_rng(seed)
    dealt = [_explained(relative, generator.permutation(of), counts) / total for _ in range(permutations)]
    larger = sum(each >= share * (1 - 1e-12) for each in dealt)
    return Interaction(share, (1 + larger) / (1 + permutations))


def _explained(relative: FloatArray, of: NDArray[np.int64], counts: Sequence[int]) -> float:
    """Return the sum of squares of the kinds' means, each counted as often as it has instances."""
    sums = np.zeros((len(counts), relative.shape[1]))
    np.add.at(sums, of, relative)
    return float((sums**2 / np.asarray(counts)[:, None]).sum())
