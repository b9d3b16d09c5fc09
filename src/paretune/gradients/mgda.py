"""Multiple-gradient descent: the combined gradient that improves the least improved objective most."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import nnls

from paretune.core.preferences import FloatArray
from paretune.gradients.gram import prepare


def mgda(
    gram: ArrayLike, norm_power: int = 0, preference: ArrayLike | None = None, preference_power: int = 1
) -> FloatArray:
    """Return the objective weights whose combined gradient is the shortest in the convex hull of the gradients.

    With `d = sum_k weights_k g_k` and no rescaling, `<g_k, d> >= |d|^2` for every objective that is kept: a small step
    along d makes none worse, and d is 0 only where no direction improves all of them. With rescaling the same holds
    of the rescaled gradients, so d still turns against none of them.

    Args:
        gram: Inner products `[K, K]` of the objectives' gradients in the metric of the optimiser.
        norm_power: Each gradient is divided by its norm to this power first, 0, 1 or 2. At 0 the shortest gradient,
            that of the objective nearest to its optimum, gets most weight.
        preference: `[K]`; None treats objectives alike. One of preference 0 is left out.
        preference_power: Each gradient is multiplied by its preference to this power first. 1 is the usual way, of
            losses scaled by their preference: `preference_k <g_k, d> >= |d|^2`, so the objective preferred *least*
            gains most. With -1, `<g_k, d> >= preference_k |d|^2`: gains go with preferences, and gradients that are
            orthogonal and equally long get the preference itself as weights, up to a factor.

    Returns:
        Weights `[K]` of the raw gradients, non-negative; 0 for an objective whose gradient vanishes. Without rescaling
        they sum to 1. All are 0 where no gradient is left.

    Raises:
        ShapeError: If `gram` is not a symmetric square matrix with a non-negative diagonal.
        NonFiniteError: If an inner product is not finite.
        ConfigError: If `norm_power` is none of 0, 1, 2, or `preference_power` none of -1, 0, 1.
        PreferenceError: If the preference has no K weights, none negative and one above 0.

    Source:
        Désidéri 2012 (MGDA); Sener and Koltun 2018. Gradients divided by their norms: Li et al. 2025 (GAPO), whose p is
        `norm_power`. The preference power of -1 is ours.

    Departures:
        The hull's shortest vector is found exactly, by non-negative least squares, not by Frank-Wolfe steps, which
        stop before they descend for all of three or more objectives. Gradients that vanish are left out; with them
        the shortest vector would be 0. The weights go with the rescaled gradients, as the proof needs: here they are
        multiplied out, so that they can be applied to the raw ones.

    Example:
        >>> mgda([[1.0, 0.0], [0.0, 3.0]])
        array([0.75, 0.25])
    """
    prepared = prepare(gram, norm_power, preference, preference_power)
    if not prepared.kept.any():
        return np.zeros(len(prepared.kept))
    return prepared.on_raw_gradients(shortest_in_hull(prepared.root, prepared.norms))


def shortest_in_hull(root: FloatArray, norms: FloatArray) -> FloatArray:
    """Return the weights `[k]` on the simplex whose combination of k vectors is the shortest.

    Write non-negative numbers as `t weights`, with weights on the simplex. The least of `|t V weights|^2 + m^2 (t -
    1)^2` over t is `m^2 q / (m^2 + q)` with `q = |V weights|^2`, which grows with q: so the weights that solve this
    least-squares problem are those of the shortest vector, whatever m > 0. We take the shortest norm for m, and solve
    for `norms * t weights / m`, which makes all columns about equally long.

    Args:
        root: Directions of the vectors, one a column of length 1, `[r, k]`.
        norms: Their lengths `[k]`, positive.
    """
    shares = norms.min() / norms
    target = np.append(np.zeros(len(root)), 1.0)
    solution, _ = nnls(np.vstack([root, shares]), target)
    weights = np.asarray(solution * shares)
    return np.asarray(weights / weights.sum())
