"""Exp3, in the log domain: choose among arms whose payoffs may change at any time, paid for the drawn arm only."""

from __future__ import annotations

import numpy as np

from paretune.bandits.policies import drawn
from paretune.core.errors import NonFiniteError, ShapeError
from paretune.core.preferences import FloatArray


def probabilities(log_weights: FloatArray, exploration: float) -> FloatArray:
    """Return the chance of each arm, `p = (1 - gamma) softmax(L) + gamma / n`.

    Args:
        log_weights: L, log weights of n arms `[n]`; all zero at the start.
        exploration: gamma, from 0 to 1; no arm's chance falls below gamma / n.

    Source:
        Auer, Cesa-Bianchi, Freund and Schapire 2002, The nonstochastic multiarmed bandit problem.

    Example:
        >>> probabilities(np.log([1.0, 1.0, 2.0]), 0.2).round(4).tolist()
        [0.2667, 0.2667, 0.4667]
    """
    powers = np.exp(log_weights - log_weights.max())  # the largest is 1: no overflow, whatever has been added up
    return np.asarray((1 - exploration) * powers / powers.sum() + exploration / len(log_weights))


def draw(chances: FloatArray, generator: np.random.Generator) -> int:
    """Draw an arm from chances `[n]` by one uniform number, see `policies.drawn`."""
    return int(drawn(chances[None], np.asarray([generator.random()]))[0])


def updated(
    log_weights: FloatArray, arm: int, payoff: float, exploration: float, learning_rate: float | None = None
) -> FloatArray:
    """Return the log weights after an arm was drawn and paid: `L_a + eta x / (n p_a)`, all others as they were.

    The division by the arm's chance makes up for the pulls at which it was not drawn.

    Args:
        log_weights: L before it, `[n]`; left as it is.
        arm: The arm drawn, a.
        payoff: x. The bound on the regret is for payoffs from 0 to 1; others, also negative ones, are not clipped.
        exploration: gamma of the chances that the arm was drawn with.
        learning_rate: eta; None takes gamma, as published.

    Raises:
        NonFiniteError: If the payoff is NaN or infinite.
        ShapeError: If there is no such arm.
    """
    if not np.isfinite(payoff):
        raise NonFiniteError(f"payoff must be finite, got {payoff}. Leave out the update of an arm that was not paid.")
    if not 0 <= arm < len(log_weights):
        raise ShapeError(f"arm must be one of 0 to {len(log_weights) - 1}, got {arm}. Count arms from 0.")
    rate = exploration if learning_rate is None else learning_rate
    result = np.array(log_weights, dtype=np.float64)
    result[arm] += rate * payoff / (len(result) * probabilities(result, exploration)[arm])
    return result
