"""Optimistic linear support: where on the simplex another policy could gain most over the ones that are known."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import block_diag
from scipy.spatial import HalfspaceIntersection

from paretune.core.errors import ConfigError, NonFiniteError, ShapeError
from paretune.core.preferences import check_preferences, onto_simplex
from paretune.pareto.front import check_some_scores
from paretune.pareto.linear_program import solved

FloatArray = NDArray[np.float64]
DIGITS = 9  # corners that differ in their last bits only are one


@dataclass(frozen=True, eq=False)
class Support:
    """The corners of a coverage set and what could be gained there.

    Attributes:
        corners: Weights at which the best known policy changes, and the corners of the simplex, `[C, K]`, the largest
            gain first.
        gains: How far the best possible policy may lie above the best known one there, `[C]`.
    """

    corners: FloatArray
    gains: FloatArray

    @property
    def certificate(self) -> float:
        """The most that any weights on the simplex can still gain, if trained policies are the best for theirs."""
        return float(self.gains[0])


def corner_weights(scores: ArrayLike) -> FloatArray:
    """Return the corners of `w -> max_n w . scores[n]` over the simplex, `[C, K]`: its kinks and the simplex's corners.

    Args:
        scores: `[N, K]`, higher is better.

    Raises:
        ShapeError: If there is no score vector.
        NonFiniteError: If a score is NaN or infinite.

    Source:
        Cheng 1988 (linear support); Roijers, Whiteson and Oliehoek 2015. For K = 2 from all pairs of lines, beyond it
        by half-space intersection (Qhull).

    Example:
        >>> corner_weights([[1, 0], [0, 1], [0.5, 0.75]]).round(3).tolist()
        [[0.0, 1.0], [0.333, 0.667], [0.6, 0.4], [1.0, 0.0]]
    """
    points = np.unique(check_some_scores(scores), axis=0)
    objectives = points.shape[1]
    if objectives == 1:
        return np.ones((1, 1))
    found = _kinks(points) if objectives == 2 else _vertices(points)
    return np.asarray(np.unique(onto_simplex(found).round(DIGITS), axis=0))


def possible_gains(scores: ArrayLike, objective_weights: ArrayLike, slack: ArrayLike) -> Support:
    """Return the corners of what is known, and how much more the best policy there could be worth.

    A policy `v` that nobody has trained is bounded where one was trained, for weights `w_i`:
    `w_i . v <= max_n w_i . scores[n] + slack[i]`. The bound on `w . v` at other weights is a linear program. It is
    convex in w, and what is known is linear between corners; so nowhere on the simplex is more to be gained than at a
    corner.

    Args:
        scores: Of the known policies, `[N, K]`.
        objective_weights: What policies were trained for, `[V, K]`, the corners of the simplex among them.
        slack: By how much the best policy for each of them may exceed the best that was measured, `[V]`: noise, and
            what training leaves to be had.

    Raises:
        ShapeError: If the shapes disagree.
        NonFiniteError: If a score or slack is NaN or infinite, or a bound cannot be found.
        PreferenceError: If weights are no points on the simplex.
        ConfigError: If no policy was trained for a corner of the simplex, where nothing bounds the gain then.

    Source:
        Roijers, Whiteson and Oliehoek 2015, *Computing convex coverage sets for faster multi-objective coordination*,
        and Roijers 2016 for bounded errors.

    Example:
        >>> found = possible_gains([[1, 0], [0, 1]], [[1, 0], [0, 1]], [0, 0])
        >>> found.corners[0].tolist(), found.certificate  # (1, 1) may exist
        ([0.5, 0.5], 0.5)
    """
    points = check_some_scores(scores)
    objectives = points.shape[1]
    trained, room = check_preferences(objective_weights, objectives), np.asarray(slack, dtype=np.float64)
    if room.shape != (len(trained),):
        raise ShapeError(
            f"slack must have one entry per row of objective_weights ({len(trained)}), got shape {list(room.shape)}. "
            "Give 0 for policies that are exact."
        )
    if not np.isfinite(room).all():
        raise NonFiniteError(f"slack must be finite, got {room.tolist()}. Give 0 for policies that are exact.")
    reached = (np.abs(trained[None] - np.eye(objectives)[:, None]).max(axis=2) < 10**-DIGITS).any(axis=1)
    if not reached.all():
        raise ConfigError(
            f"objective_weights must hold every corner of the simplex, got none for objective {int(reached.argmin())}. "
            "Train one policy for each objective first."
        )
    bounds = (trained @ points.T).max(axis=1) + room
    corners = corner_weights(points)
    gains = _bounds(corners, trained, bounds) - (corners @ points.T).max(axis=1)
    order = np.argsort(-gains.round(DIGITS), kind="stable")
    return Support(corners[order], np.maximum(gains[order], 0.0))


def _bounds(corners: FloatArray, objective_weights: FloatArray, bounds: FloatArray) -> FloatArray:
    """Return for each corner the most `corner . v` can be with `w_i . v <= bounds[i]`, `[C]`, by one program."""
    count, objectives = corners.shape
    best, _ = solved(
        -corners.ravel(), A_ub=block_diag([objective_weights] * count, format="csr"), b_ub=np.tile(bounds, count),
        bounds=(None, None),
    )  # fmt: skip
    return np.asarray((corners * best.reshape(count, objectives)).sum(axis=1))


def _kinks(points: FloatArray) -> FloatArray:
    """Return both ends of [0, 1] and where the highest of some lines changes, as `[C, 2]`."""
    start, slope = points[:, 1], points[:, 0] - points[:, 1]  # utility at share t of the first objective
    shares = [0.0, 1.0]
    for one, other in itertools.combinations(range(len(points)), 2):
        if slope[one] == slope[other]:
            continue
        share = (start[other] - start[one]) / (slope[one] - slope[other])
        height = start[one] + share * slope[one]
        if 0 < share < 1 and height >= (start + share * slope).max() - 10**-DIGITS * (1 + abs(height)):
            shares.append(float(share))
    firsts = np.asarray(shares)
    return np.stack([firsts, 1 - firsts], axis=1)


def _vertices(points: FloatArray) -> FloatArray:
    """Return the weights of the vertices of `{(w, u): u >= w . point for all}` over the simplex, `[C, K]`."""
    free = points.shape[1] - 1  # the last weight is what the others leave of one
    top = float(points.max()) + max(1.0, float(np.ptp(points)))
    last = points[:, -1:]
    planes = np.hstack([points[:, :-1] - last, np.full((len(points), 1), -1.0), last])
    sides = np.hstack([-np.eye(free), np.zeros((free, 2))])  # no weight below 0
    total = np.hstack([np.ones(free), [0.0, -1.0]])
    lid = np.hstack([np.zeros(free), [1.0, -top]])
    inside = np.full(free, 1 / (free + 1))
    height = (float(points.mean(axis=1).max()) + top) / 2
    cut = HalfspaceIntersection(np.vstack([planes, sides, total, lid]), np.append(inside, height)).intersections
    below = cut[np.isfinite(cut).all(axis=1) & (cut[:, -1] < top - 1e-6)]
    return np.hstack([below[:, :-1], 1 - below[:, :-1].sum(axis=1, keepdims=True)])
