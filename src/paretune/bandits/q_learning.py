"""Tabular Q-learning: what each action in each state is worth, learned from steps alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from paretune.core.errors import NonFiniteError, ShapeError
from paretune.core.preferences import FloatArray

Bools = NDArray[np.bool_]


def epsilon_greedy(values: FloatArray, allowed: Bools, epsilon: float, generator: np.random.Generator) -> int:
    """Return an allowed action: the best one, or with a chance of epsilon any, by two uniform numbers.

    Args:
        values: Q of each action in this state, `[A]`.
        allowed: Whether each can be taken here, `[A]`.
        epsilon: Chance of an action at random, which may be the best one.
        generator: Asked for two numbers, whatever comes of it.

    Raises:
        ShapeError: If no action is allowed.
    """
    known = np.flatnonzero(allowed)
    if not len(known):
        raise ShapeError("allowed must have an action, got none. Let staying be one.")
    at_random, place = generator.random(), generator.random()
    if at_random >= epsilon:
        known = known[values[known] == values[known].max()]
    return int(known[min(int(place * len(known)), len(known) - 1)])


def updated(
    values: FloatArray, action: int, reward: float, next_best: float, learning_rate: float, discount: float
) -> FloatArray:
    """Return a state's values after a step: `Q_a + eta (x + gamma max Q' - Q_a)`, all others as they were.

    Args:
        values: Q of each action in the state that was left, `[A]`; left as it is.
        action: What was done there, a.
        reward: x.
        next_best: Highest value in the state that was reached, of the actions allowed there.
        learning_rate: eta, above 0 and at most 1.
        discount: gamma, from 0 to below 1.

    Raises:
        NonFiniteError: If the reward is NaN or infinite.

    Source:
        Watkins and Dayan 1992.
    """
    if not np.isfinite(reward):
        raise NonFiniteError(f"reward must be finite, got {reward}. Leave out the update of a step that was not paid.")
    result = np.array(values, dtype=np.float64)
    result[action] += learning_rate * (reward + discount * next_best - result[action])
    return result
