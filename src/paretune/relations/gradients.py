"""Relations in gradients: does a step for one objective help or hurt another?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from paretune.core.errors import NonFiniteError, ShapeError
from paretune.relations.labels import FloatArray, PairEstimate, PairEstimates, each_pair
from paretune.statistics.intervals import check_confidence, wilson_interval

SMALLEST_BATCHES = 4  # three are left when one is left out, the fewest with more than one pair to average


@dataclass(frozen=True, eq=False)
class GradientRelations:
    """How the policy gradients of objectives point.

    Attributes:
        cosines: Of the expected gradients, `[K, K]`, symmetric; has the labels.
        conflicts: Share of batches in which two gradients point apart (negative inner product), `[K, K]`, symmetric.
            It describes batches of this size with their noise, the cosine does not.
    """

    cosines: PairEstimates
    conflicts: PairEstimates


def gram_blocks(gradients: ArrayLike) -> FloatArray:
    """Return the inner products of all gradients of all batches, `[N, N, K, K]`.

    Args:
        gradients: One per batch and objective, `[N, K, D]`.

    Raises:
        ShapeError: If there are not three dimensions.
    """
    array = np.asarray(gradients, dtype=np.float64)
    if array.ndim != 3:
        raise ShapeError(
            f"gradients must have the axes batches, objectives and parameters, got shape {list(array.shape)}. "
            "Flatten the parameters of each gradient into one axis."
        )
    batches, objectives, _ = array.shape
    rows = array.reshape(batches * objectives, -1)
    blocks = (rows @ rows.T).reshape(batches, objectives, batches, objectives)
    return np.asarray(blocks.transpose(0, 2, 1, 3))


def gradient_relations(gram: ArrayLike, confidence: float = 0.95) -> GradientRelations:
    """Return cosines between the expected gradients of objectives, freed from sampling noise, and conflicts.

    Gradients of one batch share its completions, and so their noise: their inner product is biased, and the norm of
    a noisy gradient is too large. Inner products are therefore taken between different batches only, where the
    noise of one is independent of that of the other. Intervals are jackknife intervals over batches.

    Args:
        gram: Inner products `[N, N, K, K]` of N batches drawn independently of each other: entry `[a, b, i, j]` is
            that of objective i's gradient in batch a and objective j's in batch b. All gradients are taken at the
            same parameters.
        confidence: Coverage of the intervals, between 0 and 1.

    Returns:
        Cosines and conflicts. A cosine is missing, with the reason, where the norm of one of its gradients cannot be
        told from zero.

    Raises:
        ShapeError: If the axes do not match or there are fewer than four batches.
        NonFiniteError: If an entry is NaN or infinite.
        ConfigError: If `confidence` is not between 0 and 1.

    Source:
        Hoeffding 1948 (the mean over pairs of batches is a U-statistic: unbiased); Quenouille 1956 and Tukey 1958,
        the jackknife; Yu et al. 2020, gradient surgery, for the definition of a conflict; Wilson 1927.

    Example:
        >>> gradients = np.tile([[1.0, 0.0], [0.6, 0.8]], (4, 1, 1))
        >>> float(gradient_relations(gram_blocks(gradients)).cosines.values[0, 1].round(6))
        0.6
    """
    blocks = _check_gram(gram)
    check_confidence(confidence)
    return GradientRelations(_cosines(blocks, confidence), _conflicts(blocks, confidence))


def _cosines(blocks: FloatArray, confidence: float) -> PairEstimates:
    products, without = _products(blocks)  # [K, K], [N, K, K]
    norms = [_jackknife(products[i, i], without[:, i, i], confidence) for i in range(len(products))]

    def estimate(i: int, j: int) -> PairEstimate:
        for objective in (i, j):
            if not norms[objective].low > 0 or without[:, objective, objective].min() <= 0:
                return PairEstimate(reason=f"the gradient of objective {objective} cannot be told from zero")
        if i == j:
            return PairEstimate(1.0, 1.0, 1.0)
        cosine = products[i, j] / np.sqrt(products[i, i] * products[j, j])
        each = without[:, i, j] / np.sqrt(without[:, i, i] * without[:, j, j])
        return _within(_jackknife(cosine, each, confidence), -1.0, 1.0)

    return each_pair(len(products), estimate)


def _products(blocks: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return mean inner products of different batches, of all `[K, K]` and without each batch in turn `[N, K, K]`."""
    batches = len(blocks)
    apart = blocks * ~np.eye(batches, dtype=np.bool_)[:, :, None, None]
    total = apart.sum(axis=(0, 1))
    without = total - apart.sum(axis=0) - apart.sum(axis=1)
    return total / (batches * (batches - 1)), without / ((batches - 1) * (batches - 2))


def _jackknife(value: float, without: FloatArray, confidence: float) -> PairEstimate:
    """Return the bias-corrected value of a statistic and its Student-t interval."""
    batches = len(without)
    centre = float(batches * value - (batches - 1) * without.mean())
    error = float(np.sqrt((batches - 1) * without.var()))
    half = float(special.stdtrit(batches - 1, (1 + confidence) / 2)) * error
    return PairEstimate(centre, centre - half, centre + half)


def _within(pair: PairEstimate, least: float, most: float) -> PairEstimate:
    value, low, high = (min(max(end, least), most) for end in (pair.value, pair.low, pair.high))
    return PairEstimate(value, low, high)


def _conflicts(blocks: FloatArray, confidence: float) -> PairEstimates:
    own = np.einsum("aaij->aij", blocks)  # [N, K, K], products within a batch

    def estimate(i: int, j: int) -> PairEstimate:
        usable = (own[:, i, i] > 0) & (own[:, j, j] > 0)
        count = int(usable.sum())
        if count == 0:
            return PairEstimate(reason=f"in every batch the gradient of objective {i} or objective {j} is zero")
        share = int((own[usable, i, j] < 0).sum()) / count
        low, high = wilson_interval(share, count, confidence)
        return PairEstimate(share, float(low), float(high))

    return each_pair(blocks.shape[2], estimate)


def _check_gram(gram: ArrayLike) -> FloatArray:
    blocks = np.asarray(gram, dtype=np.float64)
    if blocks.ndim != 4 or blocks.shape[0] != blocks.shape[1] or blocks.shape[2] != blocks.shape[3]:
        raise ShapeError(
            f"gram must have the axes batches, batches, objectives and objectives, got shape {list(blocks.shape)}. "
            "Build it with gram_blocks."
        )
    if len(blocks) < SMALLEST_BATCHES:
        raise ShapeError(f"gram must hold at least {SMALLEST_BATCHES} batches, got {len(blocks)}. Take more batches.")
    if not np.isfinite(blocks).all():
        raise NonFiniteError("gram must be finite, got a NaN or infinity. Leave out batches without a gradient.")
    return blocks
