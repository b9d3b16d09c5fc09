"""Relations in outcomes: what training for one objective does to the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from paretune.core.errors import NonFiniteError, ShapeError
from paretune.relations.labels import FloatArray, PairEstimate, PairEstimates, each_pair
from paretune.statistics.intervals import check_confidence, mean_interval

NO_SEED = "no seed has the scores of both policies"


@dataclass(frozen=True, eq=False)
class OutcomeRelations:
    """What training changed; row i is the policy trained for objective i, column j the objective it was scored on.

    Attributes:
        changes: Score of the trained policy minus that of the base model, `[K, K]`.
        per_gain: Change of j for each unit of i's gain in its own objective, `[K, K]`; has the labels. It is not
            symmetric: warmth may cost brevity although brevity costs no warmth.
        seeds: Number of seeds each change per gain was taken over, `[K, K]`: those with a score of i and of j. A
            change alone needs no score of i and may have more.
    """

    changes: PairEstimates
    per_gain: PairEstimates
    seeds: NDArray[np.int64]


def outcome_relations(base: ArrayLike, trained: ArrayLike, confidence: float = 0.95) -> OutcomeRelations:
    """Compare policies, each trained for one objective, with the base model in all objectives.

    Changes are paired: per seed, averaged over prompts. Their intervals account for the seeds, and so for the chance
    of training. The change per unit of gain is a ratio of two means over the same seeds, and has Fieller's interval,
    which stays right where the gain is uncertain.

    Args:
        base: Scores of the base model, `[K]`, `[P, K]` or `[S, P, K]`.
        trained: Scores `[K, S, P, K]` of S seeds on P prompts, by the objective trained for, seed, prompt and
            objective. Scores of different objectives have comparable units, such as their ranges. A seed
            with a NaN, a missing score, is left out where it matters.
        confidence: Coverage of the intervals, between 0 and 1.

    Returns:
        The changes. One seed has no intervals, with the reason. A change per unit of gain is missing where training
        for i did not clearly raise i, with the reason.

    Raises:
        ShapeError: If the shapes do not match.
        NonFiniteError: If a score is infinite.
        ConfigError: If `confidence` is not between 0 and 1.

    Source:
        Student 1908; Fieller 1954, the interval of a ratio.

    Example:
        >>> trained = np.array([[[[0.8, 0.4]], [[0.6, 0.5]]], [[[0.5, 0.7]], [[0.5, 0.9]]]])
        >>> outcome_relations([0.5, 0.5], trained).changes.values.round(2).tolist()
        [[0.2, -0.05], [0.0, 0.3]]
    """
    changes = _changes(base, trained)  # [K, S, K]
    check_confidence(confidence)
    objectives = len(changes)
    known = (~np.isnan(changes)).astype(np.int64)  # [K, S, K]
    gained = np.einsum("isi->is", known)
    return OutcomeRelations(
        each_pair(objectives, lambda i, j: _difference(changes[i, :, j], confidence)),
        each_pair(objectives, lambda i, j: _ratio(changes[i, :, j], changes[i, :, i], i, confidence)),
        np.asarray(np.einsum("isj,is->ij", known, gained)),
    )


def _difference(changes: FloatArray, confidence: float) -> PairEstimate:
    kept = changes[~np.isnan(changes)]
    if len(kept) == 0:
        return PairEstimate(reason=NO_SEED)
    interval = mean_interval(kept, confidence)
    if interval.low is None or interval.high is None:
        return PairEstimate(interval.mean, reason=interval.reason)
    return PairEstimate(interval.mean, interval.low, interval.high)


def _ratio(changes: FloatArray, gains: FloatArray, objective: int, confidence: float) -> PairEstimate:
    """Return the mean change per unit of mean gain: the values R for which `change - R gain` may have mean 0."""
    kept = ~np.isnan(changes) & ~np.isnan(gains)
    count = int(kept.sum())
    if count == 0:
        return PairEstimate(reason=NO_SEED)
    change, gain = float(changes[kept].mean()), float(gains[kept].mean())
    if gain <= 0:
        return PairEstimate(reason=f"training for objective {objective} did not raise it")
    if count == 1:
        return PairEstimate(change / gain, reason="one seed: no interval")
    spread = np.cov(changes[kept], gains[kept]) * float(special.stdtrit(count - 1, (1 + confidence) / 2)) ** 2 / count
    square = gain**2 - spread[1, 1]  # of the quadratic `square R^2 - 2 linear R + constant = 0`
    if square <= 0:
        return PairEstimate(reason=f"training for objective {objective} did not clearly raise it")
    linear, constant = gain * change - spread[0, 1], change**2 - spread[0, 0]
    root = np.sqrt(max(linear**2 - square * constant, 0.0))  # below 0 by rounding only
    return PairEstimate(change / gain, float((linear - root) / square), float((linear + root) / square))


def _changes(base: ArrayLike, trained: ArrayLike) -> FloatArray:
    after, before = np.asarray(trained, dtype=np.float64), np.asarray(base, dtype=np.float64)
    if after.ndim != 4 or after.shape[0] != after.shape[3] or 0 in after.shape:
        raise ShapeError(
            "trained must have the axes objectives (trained for), seeds, prompts and objectives (scored), "
            f"got shape {list(after.shape)}. Give one policy per objective, in the order of the scores."
        )
    if before.ndim not in (1, 2, 3) or before.shape != after.shape[4 - before.ndim :]:
        raise ShapeError(
            f"base must have the last axes of trained ({list(after.shape[1:])}), got shape {list(before.shape)}. "
            "Score the base model on the same prompts."
        )
    for name, scores in (("trained", after), ("base", before)):
        if np.isinf(scores).any():
            raise NonFiniteError(f"{name} must be finite or NaN, got an infinity. Write a missing score as NaN.")
    return np.asarray((after - before).mean(axis=2))
