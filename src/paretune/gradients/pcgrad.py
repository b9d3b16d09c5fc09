"""Gradient surgery (PCGrad): each gradient loses its part against every other one that it conflicts with."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from paretune.core.preferences import FloatArray
from paretune.gradients.gram import Prepared, mean_of_projections


def pcgrad(gram: ArrayLike, generator: np.random.Generator, preference: ArrayLike | None = None) -> FloatArray:
    """Return the objective weights of the mean of all gradients, each projected off those it conflicts with.

    Gradient i, as it is by then, is compared with every other one in random order; where its inner product with
    gradient j is negative, it is projected on the plane normal to j. A projection adds a multiple of gradient j, so
    inner products are all it needs.

    For two objectives the result turns against neither. For three or more it may: a projection can bring back a
    conflict that an earlier one had removed.

    Args:
        gram: Inner products `[K, K]` of the objectives' gradients in the metric of the optimiser.
        generator: Draws the orders, one for each gradient.
        preference: See `gram.mean_of_projections`, as are returns and errors.

    Source:
        Yu et al. 2020, Gradient surgery for multi-task learning, algorithm 1.

    Departures:
        The mean of the projected gradients, not their sum, so that the step does not grow with K; and a preference.
        Gradients that vanish are left out, as no plane is normal to them.

    Example:
        >>> pcgrad([[1.0, -0.5], [-0.5, 1.0]], np.random.default_rng(0))
        array([0.75, 0.75])
    """
    return mean_of_projections(gram, preference, lambda prepared, place: _projected(prepared, place, generator))


def _projected(prepared: Prepared, place: int, generator: np.random.Generator) -> FloatArray:
    """Return what a unit gradient becomes, as shares `[k]` of all unit gradients."""
    cosines = prepared.root.T @ prepared.root
    shares = np.zeros(len(cosines))
    shares[place] = 1.0
    inner = cosines[place]  # with every unit gradient, as it is by now
    for other in generator.permutation(len(cosines)):
        if other != place and inner[other] < 0:
            shares[other] -= inner[other]
            inner = inner - inner[other] * cosines[other]
    return shares
