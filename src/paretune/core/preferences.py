"""Points on the simplex: checking, naming, grids and nearest neighbours."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paretune.core.checks import did_you_mean
from paretune.core.errors import PreferenceError
from paretune.core.limits import MAX_GRID
from paretune.core.user_calls import shown

FloatArray = NDArray[np.float64]
Point = Sequence[float] | Mapping[str, float]  # a preference as somebody names it
SAME_PREFERENCE = 1e-9  # largest difference of one weight: one point reached in two ways may differ in its last bits
SUM_TOLERANCE = 1e-5  # room for six decimals typed by hand, such as 0.333333 three times, of up to 20 objectives


def check_preferences(preferences: ArrayLike, objectives: int) -> FloatArray:
    """Return preferences as `[M, K]`, each row divided by its sum: ratios say as much as shares.

    Args:
        preferences: One preference `[K]` or several `[M, K]`, shares or ratios: `[1, 1, 2]` is `[.25, .25, .5]`. A row
            that sums to 1 but for rounding is left as it is.
        objectives: Number of objectives K.

    Raises:
        PreferenceError: If it is no array of numbers, there is none, or a row has another length, a negative or
            non-finite entry, or nothing but zeros.

    Example:
        >>> check_preferences([3, 1], 2).tolist()
        [[0.75, 0.25]]
    """
    rows = np.atleast_2d(_numbers(preferences))
    if rows.ndim != 2 or rows.shape[1] != objectives or not len(rows):
        raise PreferenceError(
            f"preference must have one entry per objective ({objectives}), got shape {list(rows.shape)}. "
            "Give every objective a weight; 0 is allowed."
        )
    for row in rows:
        if not np.isfinite(row).all() or (row < 0).any():
            raise PreferenceError(
                f"preference must be finite and non-negative, got {row.tolist()}. Give every objective a weight of 0 "
                "or more."
            )
        if not row.any():
            raise PreferenceError(
                f"preference must have a weight above 0, got {row.tolist()}. Give some objective a weight."
            )
        with np.errstate(over="ignore"):
            total = float(row.sum())
        if abs(total - 1) > SUM_TOLERANCE:
            row /= row.max()  # first, as the sum of huge weights is infinite
            row /= row.sum()
    return rows


def _numbers(preferences: ArrayLike) -> FloatArray:
    try:
        given = np.asarray(preferences)
        if given.dtype.kind in "iuf":
            return given.astype(np.float64)
    except (ValueError, TypeError):  # rows of different lengths
        pass
    raise PreferenceError(
        f"preference must be numbers, one for each objective, got {shown(preferences)}. Write [0.7, 0.3], or a list of "
        "such lists where several are asked for."
    )


def preference_from_mapping(preference: Mapping[str, float], objectives: Sequence[str]) -> FloatArray:
    """Turn `{"empathy": 0.7, "brevity": 0.3}` or `{"empathy": 7, "brevity": 3}` into `[K]`; those left out count 0.

    Raises:
        PreferenceError: If a name is unknown, or a value negative, not finite or no number, or all are 0.
    """
    for name in preference:
        if name not in objectives:
            raise PreferenceError(
                f"preference must name objectives of the task ({', '.join(objectives)}), got '{name}'."
                f"{did_you_mean(name, objectives) or ' Correct it.'}"
            )
    for name, weight in preference.items():
        if isinstance(weight, bool) or not isinstance(weight, Real):
            raise PreferenceError(
                f"preference must be a number for each objective, got {shown(weight)} for '{name}'. Write 1."
            )
    row = [float(preference.get(name, 0.0)) for name in objectives]
    return np.asarray(check_preferences(row, len(objectives))[0])


def wanted_preferences(
    points: ArrayLike | Mapping[str, float] | Sequence[Point], objectives: Sequence[str]
) -> FloatArray:
    """Return the preferences that somebody names, `[M, K]`, each once.

    Args:
        points: Each a list of K weights or a mapping from objectives to weights, those left out 0; shares or ratios.
            A single one is one preference.
        objectives: Names of the K objectives.

    Raises:
        PreferenceError: If one is no preference, or one is named twice.

    Example:
        >>> wanted_preferences([[1, 1], {"empathy": 1}], ["empathy", "brevity"]).tolist()
        [[0.5, 0.5], [1.0, 0.0]]
    """
    several: Any = [points] if isinstance(points, Mapping) else points
    if isinstance(several, Sequence) and any(isinstance(each, Mapping) for each in several):
        arrays = [preference_from_mapping(each, objectives) if isinstance(each, Mapping) else each for each in several]
        rows = np.vstack([check_preferences(each, len(objectives)) for each in arrays])
    else:
        rows = check_preferences(several, len(objectives))
    for first, second in itertools.combinations(rows, 2):
        if np.abs(first - second).max() <= SAME_PREFERENCE:
            raise PreferenceError(
                f"preferences must each be named once, got {preference_label(first, objectives)} twice. Remove one."
            )
    return rows


def preference_label(preference: ArrayLike, objectives: Sequence[str], digits: int = 2) -> str:
    """Name a preference for people: `empathy .70, brevity .30`; a corner is just its objective."""
    row = np.asarray(preference, dtype=np.float64)
    parts = [(name, weight) for name, weight in zip(objectives, row, strict=True) if weight > 0]
    if len(parts) == 1:
        return parts[0][0]
    return ", ".join(f"{name} {f'{weight:.{digits}f}'.removeprefix('0')}" for name, weight in parts)


def corners(objectives: int) -> FloatArray:
    """Return the K corners of the simplex, `[K, K]`."""
    return np.eye(objectives)


def centre(objectives: int) -> FloatArray:
    """Return the point of equal weights, `[K]`."""
    return np.full(objectives, 1.0 / objectives)


def das_dennis(objectives: int, divisions: int) -> FloatArray:
    """Return the simplex lattice with the given number of divisions, corners first, `[M, K]`.

    Raises:
        PreferenceError: If there is no such grid, or it has more points than could be of use.

    Source:
        Das and Dennis 1998, normal-boundary intersection.

    Example:
        >>> das_dennis(2, 2).tolist()
        [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]
    """
    if objectives < 1 or divisions < 1:
        raise PreferenceError(
            f"a grid must have at least one objective and one division, got {objectives} and {divisions}. Try 10 "
            "divisions."
        )
    last = divisions + objectives - 1
    if (size := math.comb(last, objectives - 1)) > MAX_GRID:
        raise PreferenceError(
            f"a grid must have at most {MAX_GRID:,} points, got {size:.3g} of {divisions:,} divisions over "
            f"{objectives} objectives. Take fewer divisions."
        )
    points = [  # a point says where K - 1 bars stand among the divisions
        [(high - low - 1) / divisions for low, high in itertools.pairwise((-1, *bars, last))]
        for bars in itertools.combinations(range(last), objectives - 1)
    ]
    points.sort(key=lambda point: (-max(point), [-weight for weight in point]))  # corners first, in objective order
    return np.asarray(points)


def grid_preferences(objectives: int, divisions: int) -> FloatArray:
    """Return the wanted preferences of a grid: the lattice, and the centre where it is none of its points, `[M, K]`.

    Example:
        >>> len(grid_preferences(2, 3)), grid_preferences(2, 3)[-1].tolist()
        (5, [0.5, 0.5])
    """
    return add_points(das_dennis(objectives, divisions), centre(objectives))


def grid_size(objectives: int, divisions: int) -> int:
    """Return how many preferences a grid has, without making it."""
    return math.comb(divisions + objectives - 1, divisions) + (divisions % objectives > 0)


def add_points(points: FloatArray, extra: FloatArray) -> FloatArray:
    """Append the rows of `extra` that are not in `points` yet."""
    rows = points
    for row in np.atleast_2d(extra):
        if not (np.abs(rows - row).max(axis=1) <= SAME_PREFERENCE).any():
            rows = np.vstack([rows, row])
    return rows


def random_preferences(objectives: int, count: int, generator: np.random.Generator) -> FloatArray:
    """Draw points uniformly from the simplex, `[count, K]`, rounded to 4 decimals so that they print exactly."""
    points = generator.dirichlet(np.ones(objectives), size=count).round(4)
    largest = points.argmax(axis=1)
    rows = np.arange(count)
    points[rows, largest] += 1 - points.sum(axis=1)  # the largest entry takes what rounding left over
    return np.asarray(points.round(4))


def onto_simplex(points: FloatArray) -> FloatArray:
    """Return the nearest points of the simplex, `[M, K]`.

    Source:
        Held, Wolfe and Crowder 1974: subtract one number from a row and cut at 0.

    Example:
        >>> onto_simplex(np.array([[0.5, 1.0], [1.5, 0.2]])).tolist()
        [[0.25, 0.75], [1.0, 0.0]]
    """
    falling = -np.sort(-points, axis=1)
    surplus = (falling.cumsum(axis=1) - 1) / np.arange(1, points.shape[1] + 1)  # shared by the first 1, 2, ... entries
    kept = (falling > surplus).sum(axis=1)
    cut = np.maximum(points - surplus[np.arange(len(points)), kept - 1][:, None], 0.0)
    return np.asarray(cut / cut.sum(axis=1, keepdims=True))


def nearest(points: FloatArray, targets: FloatArray) -> NDArray[np.int64]:
    """Return for each target `[M, K]` the index of the nearest point `[N, K]`; the first wins a tie."""
    distances = ((targets[:, None, :] - points[None, :, :]) ** 2).sum(axis=2)
    return np.asarray(distances.round(12).argmin(axis=1))  # rounding: ties are ties, whatever the last bit
