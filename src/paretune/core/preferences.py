"""Points on the simplex: checking, naming, grids and nearest neighbours."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paretune.core.checks import did_you_mean
from paretune.core.errors import PreferenceError
from paretune.core.user_calls import shown

FloatArray = NDArray[np.float64]
SAME_PREFERENCE = 1e-9  # largest difference of one weight: one point reached in two ways may differ in its last bits
SUM_TOLERANCE = 1e-5  # room for six decimals typed by hand, such as 0.333333 three times, of up to 20 objectives


def check_preferences(preferences: ArrayLike, objectives: int) -> FloatArray:
    """Return preferences as `[M, K]`, each row non-negative with sum 1.

    Args:
        preferences: One preference `[K]` or several `[M, K]`.
        objectives: Number of objectives K.

    Raises:
        PreferenceError: If it is no array of numbers, there is none, or a row has another length, a negative or
            non-finite entry, or does not sum to 1.
    """
    rows = np.atleast_2d(_numbers(preferences))
    if rows.ndim != 2 or rows.shape[1] != objectives or not len(rows):
        raise PreferenceError(
            f"preference must have one entry per objective ({objectives}), got shape {list(rows.shape)}. "
            "Give every objective a weight; 0 is allowed."
        )
    for row in rows:
        total = float(row.sum())
        if not np.isfinite(row).all() or (row < 0).any():
            raise PreferenceError(
                f"preference must be finite and non-negative, got {row.tolist()}. Give every objective a weight from 0 "
                "to 1."
            )
        if abs(total - 1) > SUM_TOLERANCE:
            raise PreferenceError(
                f"preference must sum to 1, got {row.tolist()} (sum {total:.6g}). "
                + ("Divide it by its sum." if total > 0 else "Give some objective a weight.")
            )
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
    """Turn `{"empathy": 0.7, "brevity": 0.3}` into `[K]`; objectives left out count 0.

    Raises:
        PreferenceError: If a name is unknown or the values are not a point on the simplex.
    """
    for name in preference:
        if name not in objectives:
            raise PreferenceError(
                f"preference must name objectives of the task ({', '.join(objectives)}), got '{name}'."
                f"{did_you_mean(name, objectives)}"
            )
    for name, weight in preference.items():
        if isinstance(weight, bool) or not isinstance(weight, Real):
            raise PreferenceError(f"preference must be a number for each objective, got {shown(weight)} for '{name}'.")
    row = [float(preference.get(name, 0.0)) for name in objectives]
    return np.asarray(check_preferences(row, len(objectives))[0])


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

    Source:
        Das and Dennis 1998, normal-boundary intersection.

    Example:
        >>> das_dennis(2, 2).tolist()
        [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]
    """
    if objectives < 1 or divisions < 1:
        raise PreferenceError(
            f"a grid must have at least one objective and one division, got {objectives} and {divisions}."
        )
    last = divisions + objectives - 1
    points = [  # a point says where K - 1 bars stand among the divisions
        [(high - low - 1) / divisions for low, high in itertools.pairwise((-1, *bars, last))]
        for bars in itertools.combinations(range(last), objectives - 1)
    ]
    points.sort(key=lambda point: (-max(point), [-weight for weight in point]))  # corners first, in objective order
    return np.asarray(points)


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
