"""What each expert adds to a score, fairly shared: Shapley values from the scores of policies with some of the experts.

A coalition is a set of experts; its value is what the policy does with these alone. What an expert adds depends on who
is there already. Its Shapley value is what it adds on average over all orders in which experts can join, so that the
values of all add up to what the policy has above the base model.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from paretune.core.errors import ConfigError, ShapeError

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Orders = NDArray[np.int64]
MOST_EXACT = 6  # experts whose every coalition is scored: 64


def all_coalitions(experts: int) -> BoolArray:
    """Return every coalition of E experts, `[2^E, E]`: row b has expert e where bit e of b is set.

    Raises:
        ConfigError: If there are more than `MOST_EXACT`, or none.

    Example:
        >>> all_coalitions(2).astype(int).tolist()
        [[0, 0], [1, 0], [0, 1], [1, 1]]
    """
    if not 1 <= experts <= MOST_EXACT:
        raise ConfigError(
            f"experts must be 1 to {MOST_EXACT} for all their coalitions, got {experts}. Draw orders of joining."
        )
    return np.asarray((np.arange(2**experts)[:, None] >> np.arange(experts)) & 1, dtype=np.bool_)


def shapley_values(values: FloatArray) -> FloatArray:
    """Return the exact Shapley values of E experts.

    `phi_e = sum over S without e of |S|! (E - |S| - 1)! / E! (v(S + e) - v(S))`. They add up to the value of all less
    that of none; experts that add the same have the same, one that adds nothing has 0, and they are linear in v.

    Args:
        values: Of every coalition in the order of `all_coalitions`, `[2^E, ...]`.

    Returns:
        `[E, ...]`.

    Raises:
        ShapeError: If the number of values is no power of 2.

    Source:
        Shapley 1953, a value for n-person games.

    Example:
        >>> shapley_values(np.array([0.0, 1.0, 0.0, 3.0])).tolist()  # alone 1 and 0, together 3: 2 are shared
        [2.0, 1.0]
    """
    count = len(values)
    experts = count.bit_length() - 1
    if count != 2**experts or experts < 1:
        raise ShapeError(f"values must be of all 2^E coalitions, got {count}. Score every set of experts once.")
    sizes = np.array([place.bit_count() for place in range(count)])
    shares = np.array([math.factorial(n) * math.factorial(experts - n - 1) for n in range(experts)])
    weights = shares / math.factorial(experts)
    found = []
    for expert in range(experts):
        without = np.flatnonzero((np.arange(count) >> expert) & 1 == 0)
        added = values[without + 2**expert] - values[without]
        found.append(np.tensordot(weights[sizes[without]], added, axes=1))
    return np.stack(found)


def joining_orders(experts: int, count: int, generator: np.random.Generator) -> Orders:
    """Draw orders in which E experts join, `[N, E]`: N / 2 at random, each followed by its reverse.

    An order and its reverse err in opposite directions, so that their mean is closer than that of two at random.

    Raises:
        ConfigError: If the number of orders is odd, or below 4: then nothing says how far off they are.
    """
    if count < 4 or count % 2:
        raise ConfigError(f"count of orders must be even and at least 4, got {count}. Draw pairs of orders.")
    drawn = [generator.permutation(experts) for _ in range(count // 2)]
    return np.asarray([order for each in drawn for order in (each, each[::-1])], dtype=np.int64)


def coalitions_of(orders: Orders) -> BoolArray:
    """Return the coalitions that come about as experts join in some orders, each once, `[C, E]`."""
    return np.unique(_joined(orders).reshape(-1, orders.shape[1]), axis=0)


def estimated_shapley(orders: Orders, coalitions: BoolArray, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return Shapley values estimated from some orders, and their standard errors, `[E, ...]` each.

    In every order what the experts add sums to the value of all less that of none, and so do the estimates.

    Args:
        orders: From `joining_orders`, `[N, E]`.
        coalitions: Those that were scored, `coalitions_of(orders)` among them, `[C, E]`.
        values: Of the coalitions, `[C, ...]`.

    Raises:
        ShapeError: If a coalition of an order was not scored.

    Source:
        Castro, Gomez and Tejada 2009, sampled permutations; Mitchell et al. 2022, an order and its reverse.
    """
    places = {row.tobytes(): place for place, row in enumerate(np.ascontiguousarray(coalitions))}
    joined = np.ascontiguousarray(_joined(orders))  # [N, E + 1, E]
    try:
        found = np.array([[places[row.tobytes()] for row in each] for each in joined])
    except KeyError as error:
        raise ShapeError("values must be of every coalition of the orders, got one without. Score it.") from error
    steps = np.diff(values[found], axis=1)  # [N, E, ...], in the order of joining
    added = np.stack([row[np.argsort(order)] for row, order in zip(steps, orders, strict=True)])
    pairs = added.reshape(len(orders) // 2, 2, *added.shape[1:]).mean(axis=1)  # an order and its reverse are one draw
    return pairs.mean(axis=0), pairs.std(axis=0, ddof=1) / math.sqrt(len(pairs))


def _joined(orders: Orders) -> BoolArray:
    """Return who is there before each joins, and at the end, `[N, E + 1, E]`."""
    count, experts = orders.shape
    there = np.zeros((count, experts + 1, experts), dtype=np.bool_)
    for step in range(experts):
        there[:, step + 1] = there[:, step]
        there[np.arange(count), step + 1, orders[:, step]] = True
    return there
