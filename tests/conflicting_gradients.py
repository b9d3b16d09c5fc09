"""Gradients that conflict, in all the ways that are hard for a strategy: `import conflicting_gradients`."""

from __future__ import annotations

import numpy as np

KINDS = ("any", "cancelling", "opposite", "parallel", "nearly opposite", "vanishing")
SEEN = 1e-6  # of the longest: shorter gradients are masked, gradients.gram.ZERO


def drawn(rng: np.random.Generator, objectives: int, spread: float | None = None) -> np.ndarray:
    """Draw the gradients `[K, P]` of a hard case, of lengths that differ by a factor of thousands and of any scale.

    Args:
        rng: Draws.
        objectives: K, at least 2.
        spread: Standard deviation of the logarithm of their lengths; None: 0, .7 or 2.
    """
    jacobian = rng.standard_normal((objectives, int(rng.integers(1, objectives + 4))))
    lengths = float(rng.choice([0.0, 0.7, 2.0])) if spread is None else spread
    jacobian *= np.exp(lengths * rng.standard_normal(objectives))[:, None]
    kind, factor = KINDS[rng.integers(len(KINDS))], rng.uniform(0.1, 3)
    if kind == "cancelling":  # late in training
        jacobian[-1] = -factor * jacobian[:-1].sum(axis=0) + 1e-3 * jacobian[-1]
    elif kind == "opposite":
        jacobian[-1] = -factor * jacobian[0]
    elif kind == "parallel":
        jacobian[-1] = factor * jacobian[0] + 1e-6 * jacobian[-1]
    elif kind == "nearly opposite":
        jacobian[-1] = -factor * jacobian[0] + 1e-6 * jacobian[-1]
    elif kind == "vanishing":
        jacobian[-1] = 0
    return np.asarray(jacobian * 10.0 ** rng.integers(-8, 8))


def heard(jacobian: np.ndarray) -> np.ndarray:
    """Return which gradients are long enough to count, `[K]`."""
    norms = np.linalg.norm(jacobian, axis=1)
    return np.asarray(norms > SEEN * norms.max())
