"""UPGrad: each gradient is moved to the nearest direction that turns against no objective; their mean is taken."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import nnls

from paretune.core.preferences import FloatArray
from paretune.gradients.gram import Prepared, mean_of_projections


def upgrad(gram: ArrayLike, preference: ArrayLike | None = None) -> FloatArray:
    """Return the objective weights of the mean of all gradients, each projected on the cone of common descent.

    The cone holds every d with `<g_k, d> >= 0` for all k. Each projection is in it, and so is any mean of them: a
    small step along it makes no objective worse. Where nothing conflicts, it is the mean of the gradients themselves.

    Args:
        gram: Inner products `[K, K]` of the objectives' gradients in the metric of the optimiser.
        preference: See `gram.mean_of_projections`, as are returns and errors. An objective of preference 0 is left out
            of the cone too.

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
    return mean_of_projections(gram, preference, _projected)


def _projected(prepared: Prepared, place: int) -> FloatArray:
    """Return what a unit gradient becomes, as shares `[k]` of all unit gradients."""
    shares, _ = nnls(prepared.root, -prepared.root[:, place])  # min |u_i + root s| over s >= 0
    shares[place] += 1.0
    return np.asarray(shares)
