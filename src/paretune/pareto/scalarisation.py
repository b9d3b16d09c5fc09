"""Utilities of several scores that are no weighted sum: Chebyshev in three forms, and thresholds; with their slopes.

All are concave, and a higher score never lowers one. Scores are expected ones `[..., K]`: `J_k = E r_k - beta KL`, or
`E r_k`. An objective whose preference is 0 plays no part. What a preference *selects* among measured policies is in
`core.utilities`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from paretune.core.errors import ConfigError, NonFiniteError, ShapeError
from paretune.core.preferences import FloatArray, check_preferences
from paretune.pareto.front import check_some_scores
from paretune.pareto.linear_program import solved


def shortfalls(scores: ArrayLike, preference: ArrayLike, ideal: ArrayLike, nadir: ArrayLike) -> FloatArray:
    """Return what each score lacks to its ideal, `w_k (z_k - s_k) / (z_k - n_k)`, `[..., K]`.

    Args:
        scores: `[..., K]`.
        preference: w, a point on the simplex `[K]`.
        ideal: z, where an objective lacks nothing, `[K]`.
        nadir: n, where it lacks all of it, `[K]`.

    Raises:
        ShapeError: If the shapes disagree.
        ConfigError: If an ideal is not above its nadir.
        PreferenceError: If the preference is no point on the simplex.
    """
    points, (high, low) = _scores(scores), (np.asarray(each, np.float64) for each in (ideal, nadir))
    wanted = check_preferences(preference, points.shape[-1])[0]
    if high.shape != wanted.shape or low.shape != wanted.shape:
        raise ShapeError(
            f"ideal and nadir must be one per objective ({len(wanted)}), got {list(high.shape)} and {list(low.shape)}. "
            "Give both for every objective."
        )
    if not (np.isfinite(high) & np.isfinite(low) & (high > low)).all():
        raise ConfigError(f"ideal must be above nadir, got {high.tolist()} and {low.tolist()}. Correct one of them.")
    return np.asarray(wanted * (high - points) / (high - low))


def chebyshev_utility(scores: ArrayLike, preference: ArrayLike, ideal: ArrayLike, nadir: ArrayLike) -> FloatArray:
    """Return `-max_k w_k (z_k - s_k) / (z_k - n_k)` where w_k > 0: the worst shortfall, `[...]`.

    Args:
        scores: See `shortfalls`, as are the others.
        preference: `[K]`.
        ideal: `[K]`.
        nadir: `[K]`.

    Raises:
        ShapeError: If the shapes disagree.
        ConfigError: If an ideal is not above its nadir.
        PreferenceError: If the preference is no point on the simplex.

    Source:
        Bowman 1976; Steuer and Choo 1983.

    Example:
        >>> float(chebyshev_utility([0.8, 0.5], [0.5, 0.5], [1, 1], [0, 0]))
        -0.25
    """
    lacking = shortfalls(scores, preference, ideal, nadir)
    return np.asarray(-_masked(lacking, preference).max(axis=-1))


def smooth_chebyshev_utility(
    scores: ArrayLike, preference: ArrayLike, ideal: ArrayLike, nadir: ArrayLike, smoothing: float
) -> FloatArray:
    """Return `-mu log sum_k exp(shortfall_k / mu)`, at most `mu log K` below the Chebyshev utility, `[...]`.

    Args:
        scores: See `shortfalls`, as are the next three.
        preference: `[K]`.
        ideal: `[K]`.
        nadir: `[K]`.
        smoothing: mu, positive; towards 0 the Chebyshev utility.

    Raises:
        ShapeError: If the shapes disagree.
        ConfigError: If an ideal is not above its nadir, or mu is not positive.
        PreferenceError: If the preference is no point on the simplex.

    Source:
        Lin et al. 2024, Smooth Tchebycheff scalarization for multi-objective optimization.
    """
    if not 0 < smoothing < np.inf:
        raise ConfigError(f"smoothing must be positive, got {smoothing}. For 0 take chebyshev_utility.")
    lacking = _masked(shortfalls(scores, preference, ideal, nadir), preference)
    return np.asarray(-smoothing * np.logaddexp.reduce(lacking / smoothing, axis=-1))


def augmented_chebyshev_utility(
    scores: ArrayLike, preference: ArrayLike, ideal: ArrayLike, nadir: ArrayLike, augmentation: float
) -> FloatArray:
    """Return the Chebyshev utility less `rho sum_k shortfall_k`, `[...]`.

    With a rho above 0 none of its optima is dominated in the objectives with weight.

    Args:
        scores: See `shortfalls`, as are the next three.
        preference: `[K]`.
        ideal: `[K]`.
        nadir: `[K]`.
        augmentation: rho, not negative.

    Raises:
        ShapeError: If the shapes disagree.
        ConfigError: If an ideal is not above its nadir, or rho is negative.
        PreferenceError: If the preference is no point on the simplex.

    Source:
        Steuer and Choo 1983.

    Departures:
        Shortfalls are added up as they are weighed; published is the sum without weights.
    """
    _check_terms(0.0, augmentation)
    lacking = shortfalls(scores, preference, ideal, nadir)
    worst = _masked(lacking, preference).max(axis=-1)
    return np.asarray(-worst - augmentation * lacking.sum(axis=-1))


def chebyshev_slopes(
    scores: ArrayLike,
    preference: ArrayLike,
    ideal: ArrayLike,
    nadir: ArrayLike,
    smoothing: float = 0.0,
    augmentation: float = 0.0,
) -> FloatArray:
    """Return the gradient of a Chebyshev utility at scores `[K]`, at a kink the mean of its sides, `[K]`.

    Args:
        scores: `[K]`; the others as in `shortfalls`.
        preference: `[K]`.
        ideal: `[K]`.
        nadir: `[K]`.
        smoothing: mu of the smooth form; 0 for the sharp one.
        augmentation: rho of the augmented form; 0 for none.

    Raises:
        ShapeError: If the shapes disagree.
        ConfigError: If an ideal is not above its nadir, or mu or rho is negative.
        PreferenceError: If the preference is no point on the simplex.
    """
    _check_terms(smoothing, augmentation)
    lacking = _masked(shortfalls(scores, preference, ideal, nadir), preference)
    if smoothing > 0:
        shares = np.exp((lacking - lacking.max()) / smoothing)
    else:
        shares = (lacking == lacking.max()).astype(np.float64)
    wanted = check_preferences(preference, lacking.shape[-1])[0]
    steepness = wanted / (np.asarray(ideal, np.float64) - np.asarray(nadir, np.float64))
    return np.asarray((shares / shares.sum() + augmentation) * steepness)


def bent_scores(scores: ArrayLike, thresholds: ArrayLike, beyond: float) -> FloatArray:
    """Return `min(s_k, t_k) + b max(s_k - t_k, 0)`, what the threshold utility weighs, `[..., K]`.

    Args:
        scores: `[..., K]`.
        thresholds: t, in units of the scores, `[K]`.
        beyond: b, from 0 to 1, what counts of what is above.

    Raises:
        ShapeError: If there is not one threshold per objective.
        NonFiniteError: If a threshold is NaN or infinite.
        ConfigError: If b is not from 0 to 1.

    Example:
        >>> bent_scores([0.75, 0.25], [0.5, 0.5], 0.5).tolist()
        [0.625, 0.25]
    """
    points = _scores(scores)
    limits = _limits(thresholds, points.shape[-1], beyond)
    return np.asarray(np.minimum(points, limits) + beyond * np.maximum(points - limits, 0))


def threshold_utility(scores: ArrayLike, preference: ArrayLike, thresholds: ArrayLike, beyond: float) -> FloatArray:
    """Return the preference times `bent_scores`: the share b counts of what is above, `[...]`.

    Args:
        scores: See `bent_scores`, as are the others.
        preference: w, `[K]`.
        thresholds: `[K]`.
        beyond: b.

    Raises:
        ShapeError: If there is not one threshold per objective.
        NonFiniteError: If a threshold is NaN or infinite.
        ConfigError: If b is not from 0 to 1.
        PreferenceError: If the preference is no point on the simplex.

    Example:
        >>> round(float(threshold_utility([0.9, 0.4], [0.5, 0.5], [0.5, 0.5], 0.1)), 6)
        0.47
    """
    bent = bent_scores(scores, thresholds, beyond)
    return np.asarray(bent @ check_preferences(preference, bent.shape[-1])[0])


def threshold_slopes(scores: ArrayLike, preference: ArrayLike, thresholds: ArrayLike, beyond: float) -> FloatArray:
    """Return the gradient of the threshold utility at scores `[K]`; at a threshold that of the side above, `[K]`.

    Args:
        scores: `[K]`; the others as in `bent_scores`.
        preference: w, `[K]`.
        thresholds: `[K]`.
        beyond: b.

    Raises:
        ShapeError: If there is not one threshold per objective.
        NonFiniteError: If a threshold is NaN or infinite.
        ConfigError: If b is not from 0 to 1.
        PreferenceError: If the preference is no point on the simplex.
    """
    points = _scores(scores)
    limits = _limits(thresholds, points.shape[-1], beyond)
    wanted = check_preferences(preference, points.shape[-1])[0]
    return np.asarray(np.where(points >= limits, beyond, 1.0) * wanted)


def best_chebyshev(front: ArrayLike, preference: ArrayLike, ideal: ArrayLike, nadir: ArrayLike) -> float:
    """Return the highest Chebyshev utility of any mixture of points of a front, by linear programming.

    In coordinates J the attainable set is convex, so mixtures are attained or beaten; with a dense front what lies
    between its points and the true front is of second order in their distance.

    Args:
        front: `[N, K]`.
        preference: See `shortfalls`, as are the others.
        ideal: `[K]`.
        nadir: `[K]`.

    Raises:
        ShapeError: If the front has no point, or the shapes disagree.
        NonFiniteError: If a score is NaN or infinite, or the program has no solution.
        ConfigError: If an ideal is not above its nadir.
        PreferenceError: If the preference is no point on the simplex.
    """
    wanted = np.asarray(preference, np.float64) > 0
    points = check_some_scores(front, "front")
    lacking = shortfalls(points, preference, ideal, nadir)[:, wanted]  # of a mixture: the mixture of them
    count = len(lacking)
    # variables: shares of the points, worst shortfall; minimise the worst
    _, lowest = solved(
        np.append(np.zeros(count), 1.0),
        A_ub=np.hstack([lacking.T, -np.ones((lacking.shape[1], 1))]), b_ub=np.zeros(lacking.shape[1]),
        A_eq=np.append(np.ones(count), 0.0)[None], b_eq=[1.0], bounds=[(0, None)] * count + [(None, None)],
    )  # fmt: skip
    return -lowest


def best_threshold(front: ArrayLike, preference: ArrayLike, thresholds: ArrayLike, beyond: float) -> float:
    """Return the highest threshold utility of any mixture of points of a front; see `best_chebyshev`.

    Args:
        front: `[N, K]`.
        preference: w, `[K]`.
        thresholds: See `bent_scores`, as is the next.
        beyond: b.

    Raises:
        ShapeError: If the front has no point, or there is not one threshold per objective.
        NonFiniteError: If a score or threshold is NaN or infinite, or the program has no solution.
        ConfigError: If b is not from 0 to 1.
        PreferenceError: If the preference is no point on the simplex.
    """
    points = check_some_scores(front, "front")
    limits = _limits(thresholds, points.shape[-1], beyond)
    wanted = check_preferences(preference, points.shape[-1])[0]
    count, objectives = points.shape
    # variables: shares a of the points, and u_k <= s_k, u_k <= t_k + b (s_k - t_k), with s = a @ points
    tops = np.hstack([-points.T, np.eye(objectives)])
    bent = np.hstack([-beyond * points.T, np.eye(objectives)])
    _, lowest = solved(
        np.append(np.zeros(count), -wanted), A_ub=np.vstack([tops, bent]),
        b_ub=np.append(np.zeros(objectives), (1 - beyond) * limits),
        A_eq=np.append(np.ones(count), np.zeros(objectives))[None], b_eq=[1.0],
        bounds=[(0, None)] * count + [(None, None)] * objectives,
    )  # fmt: skip
    return -lowest


def _masked(lacking: FloatArray, preference: ArrayLike) -> FloatArray:
    return np.where(np.asarray(preference, np.float64) > 0, lacking, -np.inf)


def _scores(scores: ArrayLike) -> FloatArray:
    points = np.asarray(scores, np.float64)
    if points.ndim < 1:
        raise ShapeError(f"scores must be [..., K], got {points}. Give one for each objective.")
    return points


def _check_terms(smoothing: float, augmentation: float) -> None:
    if not (0 <= smoothing < np.inf and 0 <= augmentation < np.inf):
        raise ConfigError(
            f"smoothing and augmentation must not be negative, got {smoothing} and {augmentation}. Write 0 for none."
        )


def _limits(thresholds: ArrayLike, objectives: int, beyond: float) -> FloatArray:
    limits = np.asarray(thresholds, np.float64)
    if limits.shape != (objectives,):
        raise ShapeError(
            f"thresholds must be one per objective ({objectives}), got shape {list(limits.shape)}. Give one for each."
        )
    if not np.isfinite(limits).all():
        raise NonFiniteError(f"thresholds must be finite, got {limits.tolist()}. For none take the highest score.")
    if not 0 <= beyond <= 1:
        raise ConfigError(f"beyond must be from 0 to 1, got {beyond}. Try 0.1.")
    return limits
