"""Relations in rewards: do completions of one prompt that score high on one objective score high on another?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from paretune.core.errors import NonFiniteError, ShapeError
from paretune.relations.labels import FloatArray, PairEstimate, PairEstimates, each_pair
from paretune.statistics.intervals import check_confidence

SMALLEST_SAMPLE = 8  # completions of a prompt: of 4, a third of binary rewards agree perfectly by chance; of 8, 1 %
FEWEST = 12  # completions in all: of one prompt of 8, 8 % of unrelated rewards were labelled related; of 12, 4 %


@dataclass(frozen=True, eq=False)
class RewardRelations:
    """Rank correlations within prompts.

    Attributes:
        correlations: Mean over prompts, `[K, K]`, symmetric; has the labels.
        prompts: Number of prompts each mean was taken over, `[K, K]`.
        left_out: Completions left out for want of one of the two rewards, `[K, K]`.
    """

    correlations: PairEstimates
    prompts: NDArray[np.int64]
    left_out: NDArray[np.int64]


def reward_relations(rewards: ArrayLike, confidence: float = 0.95) -> RewardRelations:
    """Correlate the ranks of every two objectives within prompts, and average over prompts.

    Within: over all completions together, a prompt that is easy in two objectives would make them look correlated,
    although no completion has to choose between them.

    The interval accounts for sampling within prompts (jackknife over completions); the prompts are taken as they are.
    A prompt on which a reward is constant, or is once any one completion is left out, says nothing and is left out, and
    so is one with fewer than 8 completions: few ranks agree perfectly by chance, and then look certain.

    Args:
        rewards: Of sampled completions of the base model, `[P, S, K]`, P prompts of S completions each. A NaN is
            a missing reward.
        confidence: Coverage of the intervals, between 0 and 1.

    Returns:
        The correlations and their counts. A pair is missing, with the reason, if no prompt says anything about it, and
        has no interval, with the reason, if the prompts that do have fewer than 12 completions together. Intervals
        cover less often than promised where rewards hardly vary: 83 % for one prompt of 12 in which one in five scores.

    Raises:
        ShapeError: If there are not three dimensions, or one of them is empty.
        NonFiniteError: If a reward is infinite.
        ConfigError: If `confidence` is not between 0 and 1.

    Source:
        Spearman 1904; Efron and Stein 1981, the jackknife estimate of variance; Satterthwaite 1946.

    Example:
        >>> rewards = np.stack([np.arange(12.0), np.arange(12.0) ** 2, -np.arange(12.0)], axis=1)[None]
        >>> reward_relations(rewards).correlations.labels()[0]
        ('correlated', 'correlated', 'competing')
    """
    array = _check_rewards(rewards)
    check_confidence(confidence)
    prompts, samples, objectives = array.shape
    known = ~np.isnan(array)
    both = np.einsum("psi,psj->pij", known.astype(np.int64), known.astype(np.int64))  # [P, K, K]
    used = np.zeros((objectives, objectives), dtype=np.int64)

    def estimate(i: int, j: int) -> PairEstimate:
        rows = []
        for prompt in range(prompts):
            kept = known[prompt, :, i] & known[prompt, :, j]
            row = _rank_correlation(array[prompt, kept, i], array[prompt, kept, j])
            if row is not None:
                rows.append((*row, int(kept.sum())))
        used[i, j] = len(rows)
        return _mean(rows, confidence) if rows else PairEstimate(reason=_reason(array, i, j))

    correlations = each_pair(objectives, estimate)
    return RewardRelations(correlations, used, np.asarray(prompts * samples - both.sum(axis=0)))


def _rank_correlation(first: FloatArray, second: FloatArray) -> tuple[float, float] | None:
    """Return Spearman's correlation and its jackknife variance, or None where too little varies."""
    count = len(first)
    if count < SMALLEST_SAMPLE:
        return None
    (x, x_without), (y, y_without) = _centred_ranks(first), _centred_ranks(second)
    x_squares, y_squares = (x_without**2).sum(axis=0), (y_without**2).sum(axis=0)  # [S]
    if x_squares.min() == 0 or y_squares.min() == 0:  # constant once the column's completion is left out
        return None
    correlation = float(x @ y) / np.sqrt(float(x @ x) * float(y @ y))
    without = (x_without * y_without).sum(axis=0) / np.sqrt(x_squares * y_squares)  # [S]
    return correlation, float((count - 1) * without.var())


def _centred_ranks(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return centred mid-ranks `[S]`, and those with each completion left out in turn, one a column, `[S, S]`."""
    count = len(values)
    above = (values[:, None] > values) + 0.5 * (values[:, None] == values)  # [S, S], what a column adds to a row's rank
    ranks = above.sum(axis=1)
    without = ranks[:, None] - above - (count - 1) / 2
    np.fill_diagonal(without, 0.0)  # the completion left out adds nothing to a sum
    return np.asarray(ranks - count / 2), np.asarray(without)


def _mean(rows: list[tuple[float, float, int]], confidence: float) -> PairEstimate:
    values, variances, counts = (np.asarray(column) for column in zip(*rows, strict=True))
    mean, error = float(values.mean()), float(np.sqrt(variances.sum()) / len(rows))
    if counts.sum() < FEWEST:
        return PairEstimate(mean, reason=f"{counts.sum()} completions that tell, fewer than {FEWEST}: no interval")
    if error == 0:
        return PairEstimate(mean, mean, mean)
    freedom = variances.sum() ** 2 / (variances**2 / (counts - 1)).sum()  # Satterthwaite
    half = float(special.stdtrit(freedom, (1 + confidence) / 2)) * error
    return PairEstimate(mean, max(mean - half, -1.0), min(mean + half, 1.0))


def _reason(rewards: FloatArray, i: int, j: int) -> str:
    for objective in (i, j):
        column = rewards[:, :, objective]
        if np.isnan(column).all():
            return f"objective {objective} has no reward"
        spread = [np.ptp(row[~np.isnan(row)]) for row in column if not np.isnan(row).all()]
        if max(spread) == 0:
            return f"objective {objective} is constant within every prompt"
    return f"no prompt has {SMALLEST_SAMPLE} completions with both rewards, on which both vary"


def _check_rewards(rewards: ArrayLike) -> FloatArray:
    array = np.asarray(rewards, dtype=np.float64)
    if array.ndim != 3 or 0 in array.shape:
        raise ShapeError(
            f"rewards must have the axes prompts, completions and objectives, got shape {list(array.shape)}. "
            "Group the completions by prompt."
        )
    if np.isinf(array).any():
        raise NonFiniteError("rewards must be finite or NaN, got an infinity. Write a missing reward as NaN.")
    return array
