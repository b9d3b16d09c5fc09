"""One objective's gradient, moved to where no other objective gets worse by more than is allowed."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import nnls

from paretune.core.errors import ConfigError, ShapeError
from paretune.core.preferences import FloatArray
from paretune.gradients.gram import prepare


def cone(gram: ArrayLike, objective: int, eps: float = 0.0) -> FloatArray:
    """Return the objective weights of the direction nearest to one gradient that harms no other objective much.

    Of all d with `<d, g_j> >= -eps |g_i| |g_j|` for every j other than i, it is the one nearest to `g_i`. As the
    allowance goes with both norms, `eps` is a cosine: 0 allows no harm, .2 what a step of the length of `g_i` does at
    an angle of cosine -.2, and from 1 on, or infinity, everything, so that d is `g_i` itself.

    It is `d = g_i + sum_j s_j g_j` with `s_j >= 0`, and `s_j > 0` only where j is harmed as much as is allowed: the
    wanted gradient, and as much of those that it would harm as it takes. So `<d, g_i> >= |d|^2`, and d is never longer
    than `g_i`, however large the weights are.

    Args:
        gram: Inner products `[K, K]` of the objectives' gradients in the metric of the optimiser.
        objective: Which one is wanted, i.
        eps: Harm that is allowed, not negative; infinity allows all.

    Returns:
        Weights `[K]` of the raw gradients, non-negative: 1 for the wanted one, `s_j` for the others, which may be more
        than 1 where g_j is short. An objective whose gradient vanishes has weight 0 and holds nobody up; all are 0
        where it is the wanted one.

    Raises:
        ShapeError: If `gram` is not a symmetric square matrix with a non-negative diagonal, or has no such objective.
        NonFiniteError: If an inner product is not finite.
        ConfigError: If `eps` is negative or no number.

    Source:
        The projection is that of Lopez-Paz and Ranzato 2017 (gradient episodic memory), where the others are earlier
        tasks. It is solved as in Lawson and Hanson 1974, *Solving least squares problems*, chapter 23: the shortest
        vector under inequalities is one non-negative least-squares problem.

    Departures:
        An allowance that goes with the norms is ours. No ridge is added to the Gram matrix: the problem that is solved
        here needs no inverse, and is exact where gradients are opposite or there are more of them than dimensions.

    Example:
        >>> cone([[1.0, -0.5], [-0.5, 4.0]], 0)
        array([1.   , 0.125])
    """
    if not eps >= 0:
        raise ConfigError(f"eps must be at least 0, got {eps}. Write 0 for no harm at all.")
    prepared = prepare(gram)
    if not 0 <= objective < len(prepared.kept):
        raise ShapeError(
            f"objective must be one of those of the gram matrix, 0 to {len(prepared.kept) - 1}, got {objective}. "
            "Name another."
        )
    if not prepared.kept[objective]:
        return np.zeros(len(prepared.kept))
    place = int(prepared.kept[:objective].sum())
    shares = np.zeros(len(prepared.norms))
    shares[place] = 1.0
    others = np.arange(len(shares)) != place
    directions = prepared.root[:, others]  # unit gradients
    missing = -eps - directions.T @ prepared.root[:, place]  # what a correction x of the unit gradient must bring each
    if eps < 1 and (missing > 0).any():  # a cosine of -1 may be a little less by rounding
        # the shortest x with <x, u_j> >= missing_j: with y of least |sum_j y_j (u_j, missing_j) - (0, 1)|, y >= 0,
        # it is sum_j y_j u_j / (1 - missing.y), and the divisor is 1 / (1 + |x|^2): at least 1/2, as x = -u_i will do
        target = np.append(np.zeros(len(directions)), 1.0)
        solution, _ = nnls(np.vstack([directions, missing]), target)
        shares[others] = solution / (1.0 - missing @ solution)
    return prepared.on_raw_gradients(shares * prepared.norms[place] / prepared.norms)
