"""UPGrad: each gradient is moved to the nearest direction that turns against no objective; their mean is taken."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import nnls

from paretune.core.preferences import FloatArray
from paretune.gradients.gram import prepare


def upgrad(gram: ArrayLike, preference: ArrayLike | None = None) -> FloatArray:
    """Return the objective weights of the mean of all gradients, each projected on the cone of common descent.

    The cone holds every d with `<g_k, d> >= 0` for all k. Each projection is in it, and so is any mean of them: a
    small step along it makes no objective worse. Where nothing conflicts, it is the mean of the gradients themselves.

    Args:
        gram: Inner products `[K, K]` of the objectives' gradients in the metric of the optimiser.
        preference: `[K]`, weights of the mean; None weighs alike. As projections grow in proportion to what is
            projected, it is the same as losses scaled by their preference. An objective of preference 0 is left out,
            of the cone too.

    Returns:
        Weights `[K]` of the raw gradients, non-negative; 0 for an objective whose gradient vanishes. They are the
        preference itself where nothing conflicts, sum to more where something does, and are not rescaled: the step is
        that of the preference, less what conflicts. No combined gradient is longer than the mean length of the
        gradients. All are 0 where no gradient is left.

    Raises:
        ShapeError: If `gram` is not a symmetric square matrix with a non-negative diagonal.
        NonFiniteError: If an inner product is not finite.
        PreferenceError: If the preference is not a point on the simplex of K objectives.

    Source:
        Quinton and Rey 2024, Jacobian descent for multi-objective optimization (UPGrad).

    Departures:
        Each projection is exact: of all `g_i + sum_k s_k g_k` with non-negative s it is the shortest, which is
        non-negative least squares. The authors' library adds 1e-4 to the diagonal of the scaled Gram matrix, and
        turns against an objective in up to nine of ten hard cases. Gradients that vanish are left out.

    Example:
        >>> upgrad([[1.0, -0.5], [-0.5, 1.0]])
        array([0.75, 0.75])
    """
    prepared = prepare(gram, preference=preference)
    lengths = np.zeros(len(prepared.norms))  # along unit gradients
    for place, norm in enumerate(prepared.norms):
        shares, _ = nnls(prepared.root, -prepared.root[:, place])  # min |u_i + root s| over s >= 0
        shares[place] += 1.0
        lengths += norm * shares
    weights = prepared.on_raw_gradients(lengths / prepared.norms)
    return weights if preference is not None else weights / len(weights)
