"""Gradient surgery (PCGrad): each gradient loses its part against every other one that it conflicts with."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from paretune.core.preferences import FloatArray
from paretune.gradients.gram import prepare


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
        preference: `[K]`, weights of the mean; None weighs alike. As projections are linear, it is the same as losses
            scaled by their preference. An objective of preference 0 is left out.

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
        Yu et al. 2020, Gradient surgery for multi-task learning, algorithm 1.

    Departures:
        The mean of the projected gradients, not their sum, so that the step does not grow with K; and a preference.
        Gradients that vanish are left out, as no plane is normal to them.

    Example:
        >>> pcgrad([[1.0, -0.5], [-0.5, 1.0]], np.random.default_rng(0))
        array([0.75, 0.75])
    """
    prepared = prepare(gram, preference=preference)
    cosines = prepared.root.T @ prepared.root
    lengths = np.zeros(len(prepared.norms))  # along unit gradients
    for place, norm in enumerate(prepared.norms):
        lengths += norm * _projected(cosines, place, generator)
    weights = prepared.on_raw_gradients(lengths / prepared.norms)
    return weights if preference is not None else weights / len(weights)


def _projected(cosines: FloatArray, place: int, generator: np.random.Generator) -> FloatArray:
    """Return what a unit gradient becomes, as shares `[k]` of all unit gradients of cosines `[k, k]`."""
    shares = np.zeros(len(cosines))
    shares[place] = 1.0
    inner = cosines[place]  # with every unit gradient, as it is by now
    for other in generator.permutation(len(cosines)):
        if other != place and inner[other] < 0:
            shares[other] -= inner[other]
            inner = inner - inner[other] * cosines[other]
    return shares
