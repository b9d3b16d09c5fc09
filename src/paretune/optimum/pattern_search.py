"""Maximise many smooth functions of a few numbers at once, with a fixed number of evaluations: best expert weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paretune.core.errors import ConfigError, NonFiniteError, ShapeError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Found:
    """The best points that a search has evaluated.

    Attributes:
        points: `[N, D]`.
        values: `[N]`.
        evaluations: Of each of the N functions.
    """

    points: FloatArray
    values: FloatArray
    evaluations: int


def pattern_search(
    evaluate: Callable[[FloatArray], FloatArray],
    starts: FloatArray,
    step: float,
    rounds: int,
    low: float = -np.inf,
    high: float = np.inf,
) -> Found:
    """Maximise N functions at once: each round tries all neighbours of each best point, then a parabola's top.

    All candidates of a round are evaluated in one call. A step is halved where no neighbour is better. A function takes
    `S + rounds 3^D` evaluations, whatever is found.

    Args:
        evaluate: Values of C candidates of every function, `[C, N, D] -> [C, N]`; NaN where a point has none.
        starts: Where each search may start, `[S, N, D]`, within the bounds; it starts at the best.
        step: First distance to neighbours.
        rounds: How many.
        low: Least of every number.
        high: Most of every number.

    Returns:
        Never worse than any start.

    Raises:
        ShapeError: If `starts` is not `[S, N, D]`.
        ConfigError: If the step is not positive or a start out of bounds.
        NonFiniteError: If no start of a function has a value.

    Source:
        Hooke and Jeeves 1961 (direct search); the quadratic step after Box and Wilson 1951.
    """
    given = np.asarray(starts, dtype=np.float64)
    if given.ndim != 3 or 0 in given.shape:
        raise ShapeError(f"starts must have shape [S, N, D], got {given.shape}. Give one row for each function.")
    if not step > 0 or (given < low).any() or (given > high).any():
        raise ConfigError(
            f"step must be positive and starts between {low:g} and {high:g}, got step {step:g} and starts from "
            f"{given.min():g} to {given.max():g}. Start inside."
        )
    dimensions = given.shape[2]
    pattern = np.asarray([each for each in itertools.product((-1, 0, 1), repeat=dimensions) if any(each)], dtype=float)
    steps = np.full(given.shape[1], float(step))
    started = evaluate(given)
    if lost := np.flatnonzero(np.isnan(started).all(axis=0)).tolist():
        raise NonFiniteError(
            f"starts must have a value for every function, got none for function {lost[0]} of {given.shape[1]}. Start "
            "where it has one."
        )
    best, values = _better(given[0], np.full(given.shape[1], -np.inf), given, started)
    for _ in range(rounds):
        centre, at_centre = best, values
        tried = np.clip(centre + pattern[:, None] * steps[None, :, None], low, high)  # [C, N, D]
        found = evaluate(tried)
        best, values = _better(best, values, tried, found)
        moves = (tried - centre) / steps[None, :, None]
        shift = np.stack(
            [_top(moves[:, n], found[:, n] - at_centre[n]) for n in range(len(best))]  # at most two steps away
        )
        top = np.clip(centre + shift * steps[:, None], low, high)[None]
        moved = (found > at_centre).any(axis=0)
        best, values = _better(best, values, top, evaluate(top))
        steps = np.where(moved, steps, steps / 2)
    return Found(best, values, len(given) + rounds * (len(pattern) + 1))


def _better(
    best: FloatArray, values: FloatArray, tried: FloatArray, found: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the best points and values after C more candidates of each function."""
    found = np.where(np.isnan(found), -np.inf, found)  # argmax would take a NaN for the highest
    first, places = found.argmax(axis=0), np.arange(len(best))
    higher = found[first, places] > values
    return (
        np.where(higher[:, None], tried[first, places], best),
        np.where(higher, found[first, places], values),
    )


def _top(moves: FloatArray, gains: FloatArray) -> FloatArray:
    """Return the top of the parabola through gains at moves `[C, D]` (0 at 0), at most two steps away, `[D]`."""
    dimensions = moves.shape[1]
    upper = np.triu_indices(dimensions)
    terms, known = np.concatenate([moves, moves[:, upper[0]] * moves[:, upper[1]]], axis=1), np.isfinite(gains)
    fitted = np.linalg.lstsq(terms[known], gains[known], rcond=None)[0]
    slope, curvature = fitted[:dimensions], np.zeros((dimensions, dimensions))
    curvature[upper] = fitted[dimensions:]
    curvature = curvature + curvature.T  # Hessian: the diagonal doubles, mixed terms once on either side
    eigenvalues, vectors = np.linalg.eigh(curvature)
    if not eigenvalues.max() < 0:  # no top: go two steps uphill
        size = float(np.linalg.norm(slope))
        return np.asarray(2 * slope / size if size > 0 else slope)
    top = -(vectors / eigenvalues) @ (vectors.T @ slope)
    return np.asarray(top * min(1.0, 2 / max(float(np.abs(top).max()), 1e-12)))
