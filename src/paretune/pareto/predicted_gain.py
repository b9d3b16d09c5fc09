"""Predicting what training gains: which policy to train next, and for which weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cho_factor, cho_solve

from paretune.core.errors import ShapeError
from paretune.core.preferences import FloatArray
from paretune.pareto.front import check_scores, check_some_scores
from paretune.pareto.hypervolume import hypervolume

LENGTHS = (0.25, 0.5, 1.0, 2.0)  # over scores in [0, 1] and weights: from neighbours alone to all that is known
FEWEST = 4  # transitions; from fewer no error is told from luck
LEAST_SIGNAL = 0.1  # share of the mean square gain that is no noise, at least: measured noise may explain all of it


@dataclass(frozen=True, eq=False)
class GainModel:
    """What was seen of training, `(scores, weights) -> gain`, and how well that predicts.

    Attributes:
        inputs: Scores before training and weights of each transition, `[T, 2 K]`.
        gains: What scores gained, `[T, K]`.
        noise: Variances of the measured gains, `[T, K]`.
        signal: Variance of gains over all inputs, `[K]`.
        length: How far apart inputs still tell of each other.
        error: Mean square error of predicting each transition from the others.
        unchanged_error: That of predicting no gain at all.
        doubt: Standard error of the difference of the two, over transitions.
    """

    inputs: FloatArray
    gains: FloatArray
    noise: FloatArray
    signal: FloatArray
    length: float
    error: float
    unchanged_error: float
    doubt: float

    @property
    def trusted(self) -> bool:
        """Whether it predicts better than "no change" by more than a standard error, from enough transitions."""
        return len(self.inputs) >= FEWEST and self.unchanged_error - self.error > self.doubt

    def predict(self, scores: ArrayLike, objective_weights: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation of the gains of training policies of scores `[C, K]` for weights `[C, K]`.

        Far from all that was seen the mean is 0 and the deviation that of all gains.
        """
        asked = np.hstack([check_scores(scores), check_scores(objective_weights, "objective_weights")])
        near = _likeness(asked, self.inputs, self.length)  # [C, T]
        means, deviations = np.zeros_like(asked[:, : len(self.signal)]), np.zeros((len(asked), len(self.signal)))
        for k, signal in enumerate(self.signal):
            factor = _factor(self.inputs, self.length, float(signal), self.noise[:, k])
            means[:, k] = signal * near @ cho_solve(factor, self.gains[:, k])
            known = signal**2 * (near * cho_solve(factor, near.T).T).sum(axis=1)
            deviations[:, k] = np.sqrt(np.maximum(signal - known, 0.0))
        return means, deviations


def fit_gains(before: ArrayLike, objective_weights: ArrayLike, gains: ArrayLike, noise: ArrayLike) -> GainModel:
    """Fit a Gaussian process without trend to what training gained: its prior is "no change".

    Args:
        before: Scores before training, each objective scaled to [0, 1], `[T, K]`.
        objective_weights: What was trained for, `[T, K]`.
        gains: Scores after training less those before, `[T, K]`.
        noise: Variances of these differences, `[T, K]`.

    Returns:
        The model of that length scale of `LENGTHS` which predicts left-out transitions best.

    Raises:
        ShapeError: If there is no transition, or the shapes disagree.
        NonFiniteError: If an entry is NaN or infinite.

    Source:
        Xu et al. 2020, *Prediction-guided multi-objective reinforcement learning* (PGMORL), for the idea; Rasmussen and
        Williams 2006, equations 2.23 to 2.26 and 5.12, for the process and its leave-one-out predictions.

    Departures:
        Published: a sigmoid in the weight of each objective, fitted by least squares to a policy's neighbours, whose
        constants assume the returns of its tasks, and no uncertainty.
    """
    trained = check_scores(objective_weights, "objective_weights")
    told = [check_some_scores(before, "before"), trained, check_scores(gains, "gains")]
    spread = check_scores(noise, "noise")
    if len({each.shape for each in (*told, spread)}) > 1:
        raise ShapeError(
            f"before, objective_weights, gains and noise must have one shape, got "
            f"{[list(each.shape) for each in told]} and {list(spread.shape)}. Give one row a transition."
        )
    inputs, gained = np.hstack(told[:2]), told[2]
    squares = (gained**2).mean(axis=0)
    signal = np.maximum(np.maximum(squares - spread.mean(axis=0), LEAST_SIGNAL * squares), 1e-12)
    errors = np.asarray([_left_out(inputs, gained, spread, signal, length) for length in LENGTHS])  # [L, T]
    best = int(errors.mean(axis=1).round(15).argmin())
    unchanged = (gained**2).mean(axis=1)
    doubt = float(np.std(unchanged - errors[best], ddof=1) / np.sqrt(len(inputs))) if len(inputs) > 1 else np.inf
    return GainModel(
        inputs, gained, spread, signal, LENGTHS[best], float(errors[best].mean()), float(unchanged.mean()), doubt
    )


def choose_pairs(
    scores: ArrayLike, means: FloatArray, deviations: FloatArray, count: int, draws: FloatArray
) -> list[tuple[int, int]]:
    """Choose which policies to train for which weights, by the hypervolume that they are expected to add.

    One pair after the other: each is worth what it adds on average, over draws of what training gains, to what is known
    and to the pairs before it. The reference point lies below the lowest scores by `1 / (N - 1)` of the spread.

    Args:
        scores: Of the N policies, each objective scaled to [0, 1], `[N, K]`.
        means: Predicted gains for each of W weights, `[N, W, K]`.
        deviations: Of these, `[N, W, K]`.
        count: How many pairs, at most N W.
        draws: Standard normal, `[S, K]`, common to all pairs.

    Returns:
        Pairs (policy, weights), the best first, each once.

    Raises:
        ShapeError: If there are fewer than `count` pairs.

    Source:
        Xu et al. 2020, equation 5; Ishibuchi et al. 2018 for the reference point.
    """
    points = check_some_scores(scores)
    members, options = means.shape[:2]
    if count > members * options:
        raise ShapeError(f"count must be at most {members * options}, the number of pairs, got {count}. Ask for fewer.")
    spread = np.maximum(np.ptp(points, axis=0), 1e-6)
    corner = points.min(axis=0) - spread / max(1, len(points) - 1)
    hoped = points[:, None] + means + draws[:, None, None] * deviations  # [S, N, W, K]
    sets, chosen = [points for _ in draws], list[tuple[int, int]]()
    for _ in range(count):
        gains = np.full((members, options), -np.inf)
        volumes = [hypervolume(known, corner) for known in sets]
        for pair in np.ndindex(members, options):
            if pair not in chosen:
                added = [hypervolume(np.vstack([known, hoped[s][pair]]), corner) for s, known in enumerate(sets)]
                gains[pair] = np.mean(added) - np.mean(volumes)
        best = np.unravel_index(int(gains.round(12).argmax()), gains.shape)
        chosen.append((int(best[0]), int(best[1])))
        sets = [np.vstack([known, hoped[s][best]]) for s, known in enumerate(sets)]
    return chosen


def _likeness(one: FloatArray, other: FloatArray, length: float) -> FloatArray:
    """Return the squared-exponential kernel of rows, `[C, T]`."""
    squared = ((one[:, None] - other[None]) ** 2).sum(axis=2)
    return np.asarray(np.exp(-squared / (2 * length**2)))


def _factor(inputs: FloatArray, length: float, signal: float, noise: FloatArray) -> tuple[FloatArray, bool]:
    jitter = 1e-9 * signal
    factor, lower = cho_factor(signal * _likeness(inputs, inputs, length) + np.diag(noise + jitter), lower=True)
    return np.asarray(factor), bool(lower)


def _left_out(
    inputs: FloatArray, gains: FloatArray, noise: FloatArray, signal: FloatArray, length: float
) -> FloatArray:
    """Return the square error of each transition predicted from the others, `[T]`: eq. 5.12 of the same."""
    squares = np.zeros(len(inputs))
    for k in range(gains.shape[1]):
        inverse = cho_solve(_factor(inputs, length, float(signal[k]), noise[:, k]), np.eye(len(inputs)))
        squares += (inverse @ gains[:, k] / np.diag(inverse)) ** 2
    return np.asarray(squares / gains.shape[1])
