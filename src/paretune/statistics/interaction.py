"""Whether methods differ in the same way on every kind of task: a permutation test within blocks of instances."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paretune.core.errors import NonFiniteError, ShapeError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Interaction:
    """How far differences between methods depend on the kind of task.

    Attributes:
        share: Part of the variance of methods within blocks that kinds explain, 0 to 1; None where there is none.
        p_value: Chance of a share so large where kinds make no difference; None with the reason.
        reason: Why there is no p-value.
        left_out: Places of the kinds that share no block with another kind, and so took no part.
        least: The lowest p-value that so few instances can have, whatever their values; None without a p-value.
    """

    share: float | None
    p_value: float | None
    reason: str = ""
    left_out: tuple[int, ...] = ()
    least: float | None = None


def interaction(
    kinds: Sequence[ArrayLike],
    blocks: Sequence[Sequence[Hashable]] | None = None,
    permutations: int = 9_999,
    seed: int = 0,
) -> Interaction:
    """Test whether the differences between methods are those of one kind of task on every other kind.

    Within each instance, values are taken relative to the mean over methods, so that hard and easy instances do not
    count. Instances of one block have something in common, such as the seed that drew their model and prompts: it may
    suit a method on all of them. So values are also taken relative to each method's mean over the block, and only the
    labels that say of which kind an instance is are permuted, among the instances of a block. Where kinds make no
    difference, any such labels are as likely as the true ones: the share of variance that the true ones explain is
    compared with the shares that permuted ones do.

    A block whose instances are all of one kind has no labels to permute and takes no part. A kind none of whose
    instances shares a block with another kind therefore takes no part either, and is named.

    Few instances allow few labels: with two kinds that share S blocks, one instance each, no p-value is below
    `2 ** (1 - S)`. The lowest possible one is returned, too: where it is above the level of a test, that test could
    not have found anything.

    Args:
        kinds: One array a kind of task, `[S, M]`: S instances, the same M methods everywhere.
        blocks: For each kind, the block of each of its S instances; all in one block if None, for instances that have
            nothing in common.
        permutations: How often labels are permuted.
        seed: Of the permutations.

    Returns:
        The share and its p-value, `(1 + at least as large) / (1 + permutations)`. Missing, with the reason, with fewer
        than two kinds or methods, a kind without an instance, no block of two kinds, or so few instances that kinds
        explain all of any difference.

    Raises:
        ShapeError: If kinds differ in the number of methods, or not every instance has a block.
        NonFiniteError: If a value is NaN or infinite.

    Source:
        Anderson and ter Braak 2003, permutation tests of interactions: residuals of the model without the interaction,
        permuted within levels of the factor that instances are nested in.

    Example:
        >>> seeds = [[0, 1], [0, 1]]  # each seed suits one method, on both kinds alike
        >>> interaction([[[2.0, 1.0], [1.0, 2.1]], [[2.1, 1.0], [1.0, 2.0]]], seeds).p_value > 0.3
        True
    """
    arrays = [np.atleast_2d(np.asarray(each, dtype=np.float64)) for each in kinds]
    labels = [[0] * len(each) for each in arrays] if blocks is None else blocks
    _check(arrays, labels)
    if len(arrays) < 2 or arrays[0].shape[1] < 2:
        return Interaction(None, None, "an interaction needs two kinds of task and two methods")
    if min(map(len, arrays)) == 0:
        return Interaction(None, None, "a kind of task has no instance")
    kind = np.repeat(np.arange(len(arrays)), [len(each) for each in arrays])
    places = {label: place for place, label in enumerate(dict.fromkeys(each for row in labels for each in row))}
    block = np.array([places[each] for row in labels for each in row])
    mixed = [each for each in range(len(places)) if len(set(kind[block == each])) > 1]
    kept = np.flatnonzero(np.isin(block, mixed))
    kept = kept[np.argsort(block[kept], kind="stable")]  # sorted by block, as labels are permuted within it
    kind, block, values = kind[kept], block[kept], np.concatenate(arrays)[kept]
    left_out = tuple(sorted({*range(len(arrays))} - set(kind.tolist())))
    if not len(kept):
        return Interaction(None, None, "no block has instances of two kinds", left_out)
    relative = _within(values - values.mean(axis=1, keepdims=True), block)
    of_kinds = _within(np.eye(len(arrays))[kind], block)  # [N, kinds], indicators
    inverse = np.linalg.pinv(of_kinds.T @ of_kinds)  # the same for all labels: blocks keep how many they have of each
    if np.linalg.matrix_rank(of_kinds) == len(kept) - len(mixed):
        return Interaction(None, None, "one instance of each kind: nothing tells kinds from chance", left_out)
    total = float((relative**2).sum())
    if total <= 1e-24 * max(1.0, float((values**2).sum())):
        return Interaction(None, None, "methods differ by the same amount on every instance", left_out)

    def explained(indicators: FloatArray) -> float:
        sums = indicators.T @ relative
        return float((sums * (inverse @ sums)).sum()) / total

    generator = np.random.default_rng(seed)
    share = explained(of_kinds)
    drawn = (np.argsort(block + generator.random(len(block))) for _ in range(permutations))
    larger = sum(explained(of_kinds[order]) >= share * (1 - 1e-12) for order in drawn)
    least = max(_least(kind, block), 1 / (1 + permutations))
    return Interaction(share, (1 + larger) / (1 + permutations), left_out=left_out, least=least)


def _check(kinds: Sequence[FloatArray], blocks: Sequence[Sequence[Hashable]]) -> None:
    if len({each.shape[1] for each in kinds}) > 1:
        raise ShapeError(
            f"kinds must have the same methods, got {[each.shape[1] for each in kinds]} of them. Leave out the methods "
            "that some kind lacks."
        )
    if not all(np.isfinite(each).all() for each in kinds):
        raise NonFiniteError("kinds must be finite, got a NaN or infinity. Leave out the instances that lack a value.")
    if [len(each) for each in blocks] != [len(each) for each in kinds]:
        raise ShapeError(
            f"blocks must name one block for each instance, {[len(each) for each in kinds]} of them, got "
            f"{[len(each) for each in blocks]}. Give each kind a list of blocks, one for each of its instances."
        )


def _least(kind: NDArray[np.int64], block: NDArray[np.int64]) -> float:
    """Return the share of label arrangements that are as extreme as the most extreme one: itself under other names."""
    counts = np.zeros((block.max() + 1, kind.max() + 1), dtype=np.int64)  # [blocks, kinds]
    np.add.at(counts, (block, kind), 1)
    arrangements = math.prod(math.factorial(sum(row)) // math.prod(map(math.factorial, row)) for row in counts.tolist())
    alike = np.unique(counts[:, counts.any(axis=0)], axis=1, return_counts=True)[1]  # kinds in the same blocks
    return math.prod(map(math.factorial, alike.tolist())) / arrangements


def _within(values: FloatArray, block: NDArray[np.int64]) -> FloatArray:
    """Return values `[N, ...]` less the mean of their block."""
    found = values.copy()
    for each in np.unique(block):
        found[block == each] -= found[block == each].mean(axis=0)
    return found
