"""Conflict-averse gradients (CAGrad): near the mean gradient, the direction that improves the least improved most."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import nnls

from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray, check_preferences
from paretune.gradients.gram import prepare
from paretune.gradients.mgda import shortest_in_hull

CAPPED = 1e-5  # of the longest gradient: a Gram matrix in doubles knows lengths to 1e-8 of it
SOLVED = 1e-10  # relative: the radius is met
ROUNDS = 100  # a bracket that is halved so often, in logarithms, has no width


def cagrad(
    gram: ArrayLike,
    c: float,
    norm_power: int = 0,
    preference: ArrayLike | None = None,
    preference_power: int = 1,
) -> FloatArray:
    """Return weights of the d that maximises `min_k <h_k, d>` subject to `|d - g_0| <= c |g_0|`, over 1 + c.

    `g_0` is the mean of the gradients under the preference, and h_k are the gradients, rescaled: their lengths and
    preferences say what counts as improving an objective. At c = 0, d is g_0; as c grows it turns to the shortest
    vector in the hull of the h_k, as of MGDA. With c below 1 it is never 0 where g_0 is not, and `<g_0, d> >= (1 - c)
    |g_0|^2`: training still ends where the preference alone would end. It may turn against an objective, but no
    direction within the radius spares the least improved more.

    Args:
        gram: Inner products `[K, K]` of the objectives' gradients in the metric of the optimiser.
        c: Radius around g_0, as a share of its length.
        norm_power: Each h_k is divided by its norm to this power, 0, 1 or 2. At 1 an improvement is that per unit of
            gradient, whatever the scale of the reward.
        preference: `[K]`, weights of g_0; None weighs alike. An objective of preference 0 is left out.
        preference_power: Each h_k is multiplied by its preference to this power. 1 is the usual way, of losses scaled
            by their preference, under which those preferred least are spared most; -1 spares in proportion, 0 alike.

    Returns:
        Weights `[K]` of the raw gradients, non-negative; 0 for an objective whose gradient vanishes. They are the
        preference and what the h_k add, over 1 + c, with any sum: the step is never longer than that of the preference,
        and the same where gradients agree. All are 0 where no gradient is left.

    Raises:
        ShapeError: If `gram` is not a symmetric square matrix with a non-negative diagonal.
        NonFiniteError: If an inner product is not finite.
        ConfigError: If c is negative or not finite, `norm_power` is none of 0, 1, 2, or `preference_power` none
            of -1, 0, 1.
        PreferenceError: If the preference is not a point on the simplex of K objectives.

    Source:
        Liu et al. 2021, Conflict-averse gradient descent for multi-task learning, algorithm 1.

    Departures:
        Published code minimises the dual over the simplex with a general solver, and divides d by `1 + c^2`, or by
        `1 + c` as an option. The
        dual's solution for its radius is that of MGDA on `h_k + nu u`, u being g_0 at length 1, for the one nu at which
        `|sum_k v_k h_k| = nu c`; see `_within`. So it is exact for any K, also where the hull holds 0. Gradients that
        vanish are left out; with them the least improvement would be 0 whatever d. Rescaled h_k and the preference
        power of -1 are ours.

    Example:
        >>> cagrad([[1.0, 0.0], [0.0, 4.0]], c=0.5).round(3)
        array([0.706, 0.333])
    """
    if not 0 <= c < np.inf:
        raise ConfigError(f"c must be at least 0 and finite, got {c}. Try 0.4.")
    prepared = prepare(gram, norm_power, preference, preference_power)
    count = len(prepared.kept)
    wanted = np.full(count, 1 / count) if preference is None else check_preferences(preference, count)[0]
    wanted = np.where(prepared.kept, wanted, 0.0)
    factors = prepared.factors[prepared.kept]
    scale = prepared.norms.max(initial=0.0)
    vectors = prepared.root * (prepared.norms / scale) if len(factors) else prepared.root  # the longest of length 1
    middle = prepared.root @ (wanted[prepared.kept] * prepared.norms / factors)  # g_0
    length = float(np.linalg.norm(middle))
    if not length or not c:
        return np.asarray(wanted / (1 + c))
    added = prepared.on_raw_gradients(_within(vectors, middle / length, c))
    return np.asarray((wanted + length / scale * added) / (1 + c))


def _within(vectors: FloatArray, unit: FloatArray, c: float) -> FloatArray:
    """Return non-negative u `[k]` such that `unit + V u` maximises `min_k <V_k, unit + e>` over `|e| <= c`.

    By Lagrange, e is `V v / nu` for the v on the simplex that minimises `nu <unit, V v> + |V v|^2 / 2`, and so
    `|V v + nu unit|`, whose length `|V v| / nu` falls as nu grows: nu is the one at which it is c. If the hull holds 0,
    it may stay below c whatever nu: no e spares more than the shortest that spares all alike, and the radius is not
    needed.

    Args:
        vectors: V, one a column, the longest of length 1, `[r, k]`.
        unit: Of length 1, `[r]`.
        c: Positive.
    """
    low, high = CAPPED * min(1.0, 1.0 / c), 1.0 / c
    shares = _shortest(vectors + low * unit[:, None])
    reached = vectors @ shares
    if float(np.linalg.norm(reached)) <= low * c:
        few, _ = nnls(vectors, reached / low)  # without what sums to 0
        return np.asarray(few)
    radius = high
    for _ in range(ROUNDS):
        shares = _shortest(vectors + radius * unit[:, None])
        excess = float(np.linalg.norm(vectors @ shares)) / (radius * c) - 1
        if abs(excess) <= SOLVED or high <= low * (1 + SOLVED):
            break
        low, high = (radius, high) if excess > 0 else (low, radius)
        guess = _on_face(vectors[:, shares > 0], unit, c, radius)
        radius = guess if low < guess < high else math.sqrt(low * high)
    return shares * min(1 / radius, c / float(np.linalg.norm(vectors @ shares)))  # the radius, to the last digit


def _shortest(vectors: FloatArray) -> FloatArray:
    """Return weights `[k]` on the simplex of the shortest vector in the hull of columns that may vanish."""
    norms = np.linalg.norm(vectors, axis=0)
    if not norms.all():
        return np.asarray(np.eye(len(norms))[int(norms.argmin())])
    return shortest_in_hull(vectors / norms, norms)


def _on_face(vectors: FloatArray, unit: FloatArray, c: float, radius: float) -> float:
    """Return the nu with `|V v| = nu c` if v had weight on just these columns for it, NaN if there is none.

    With `sum v = 1` alone, v and so V v are linear in nu: `V v = a + nu b`.
    """
    count = vectors.shape[1]
    system = np.ones((count + 1, count + 1))
    system[:count, :count], system[count, count] = vectors.T @ vectors, 0.0
    right = np.zeros((count + 1, 2))
    right[count, 0], right[:count, 1] = 1.0, -vectors.T @ unit
    start, slope = (vectors @ np.linalg.lstsq(system, right, rcond=None)[0][:count]).T
    square, half, rest = float(slope @ slope) - c * c, float(start @ slope), float(start @ start)
    inside = half * half - square * rest
    if inside < 0 or not square:
        return float("nan")
    roots = [(-half + sign * math.sqrt(inside)) / square for sign in (-1, 1)]
    return min(roots, key=lambda root: abs(root - radius))
