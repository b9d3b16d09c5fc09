"""LinUCB with an arm's own ridge regression each (disjoint arms), exact after every update."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from paretune.bandits.ridge import add_to_inverse
from paretune.core.errors import ConfigError, NonFiniteError, ShapeError
from paretune.core.preferences import FloatArray


class Arms(NamedTuple):
    """What n arms have learned from contexts of d features.

    Attributes:
        inverses: Inverse of `ridge I + sum c c'` of each arm, `[n, d, d]`.
        sums: `sum x c` of each arm, `[n, d]`.
    """

    inverses: FloatArray
    sums: FloatArray


def fresh(arms: int, features: int, ridge: float) -> Arms:
    """Return arms that were never pulled.

    Raises:
        ConfigError: If the ridge is not positive: then no inverse exists.
    """
    if not 0 < ridge < np.inf:
        raise ConfigError(f"ridge must be positive, got {ridge}. Try 1.0.")
    return Arms(np.repeat(np.eye(features)[None] / ridge, arms, axis=0), np.zeros((arms, features)))


def upper_bounds(known: Arms, context: FloatArray, alpha: float) -> FloatArray:
    """Return the payoff that each arm may have, `theta_a . c + alpha sqrt(c' A_a^-1 c)`, `[n]`.

    Args:
        known: What the arms have learned.
        context: c, `[d]`.
        alpha: Optimism, not negative.

    Source:
        Li, Chu, Langford and Schapire 2010, algorithm 1.
    """
    reach = known.inverses @ context  # [n, d]
    means = (known.sums * reach).sum(axis=1)  # theta_a . c = b_a' A_a^-1 c
    return np.asarray(means + alpha * np.sqrt(np.maximum(reach @ context, 0)))


def chosen(bounds: FloatArray, generator: np.random.Generator) -> int:
    """Return the arm with the highest bound; ties, as all are at the start, are broken by one uniform number."""
    best = np.flatnonzero(bounds >= bounds.max() - 1e-12)
    return int(best[min(int(generator.random() * len(best)), len(best) - 1)])


def updated(known: Arms, arm: int, context: FloatArray, payoff: float) -> Arms:
    """Return what is known after an arm was paid, by the Sherman-Morrison identity: no matrix is inverted.

    Args:
        known: Left as it is.
        arm: The arm that was pulled.
        context: c at that time, `[d]`.
        payoff: x.

    Raises:
        NonFiniteError: If payoff or context are not finite.
        ShapeError: If there is no such arm.
    """
    if not (np.isfinite(payoff) and np.isfinite(context).all()):
        raise NonFiniteError(f"payoff and context must be finite, got {payoff} and {context}. Leave this update out.")
    if not 0 <= arm < len(known.sums):
        raise ShapeError(f"arm must be one of 0 to {len(known.sums) - 1}, got {arm}. Count arms from 0.")
    inverses, sums = known.inverses.copy(), known.sums.copy()
    add_to_inverse(inverses[arm], context)
    sums[arm] += payoff * context
    return Arms(inverses, sums)
