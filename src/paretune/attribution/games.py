"""The game whose players are the experts of a policy: which of its coalitions are scored, what each player adds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paretune.attribution.prompt_means import PromptMeans
from paretune.attribution.shapley import (
    MOST_EXACT,
    BoolArray,
    FloatArray,
    Orders,
    all_coalitions,
    coalitions_of,
    estimated_shapley,
    joining_orders,
    shapley_values,
)

FEWEST_ORDERS = 4  # two pairs: one says nothing of how far off it is


@dataclass(frozen=True, eq=False)
class Game:
    """Coalitions of E experts to score.

    Attributes:
        players: The experts, by their numbers among all, `[E]`.
        coalitions: Those to score, `[C, E]`; none without experts, and with too many of them.
        orders: Orders of joining that were drawn, where not all coalitions are scored.
    """

    players: NDArray[np.int64]
    coalitions: BoolArray
    orders: Orders | None = None

    @classmethod
    def of(cls, players: NDArray[np.int64], most: int, generator: np.random.Generator) -> Game:
        """Choose coalitions: all of up to six experts; of more, those of orders drawn at random, and all without one.

        Args:
            players: The experts, `[E]`.
            most: Coalitions that may be scored where orders are drawn.
            generator: Draws the orders.
        """
        experts = len(players)
        none = np.zeros((0, experts), dtype=np.bool_)
        if experts <= MOST_EXACT:
            return cls(players, all_coalitions(experts) if experts else none)
        pairs = (most - 2 - experts) // (2 * (experts - 1))
        if 2 * pairs < FEWEST_ORDERS:
            return cls(players, none)
        orders = joining_orders(experts, 2 * pairs, generator)
        return cls(players, np.unique(np.vstack([coalitions_of(orders), _all_but_one(experts)]), axis=0), orders)

    def within(self, experts: int) -> BoolArray:
        """Return the coalitions as choices among all E' experts of a policy, `[C, E']`."""
        kept = np.zeros((len(self.coalitions), experts), dtype=np.bool_)
        kept[:, self.players] = self.coalitions
        return kept

    def shared_out(self, values: FloatArray) -> Shares:
        """Return what each expert adds.

        Args:
            values: What every coalition gets on P prompts in S columns, `[C, P, S]`; NaN where it has no score.
        """
        sizes = self.coalitions.sum(axis=1)
        none, whole = int(sizes.argmin()), int(sizes.argmax())
        without = [self._place(row) for row in _all_but_one(len(self.players))]
        mean, order_error = PromptMeans.of(values), None
        if self.orders is None:
            added = shapley_values(values)  # [E, P, S]
        else:
            added, _ = estimated_shapley(self.orders, self.coalitions, values)
            _, order_error = estimated_shapley(self.orders, self.coalitions, mean.over_prompts(values))
        return Shares(
            base=mean.over_prompts(values[none]),
            policy=mean.over_prompts(values[whole]),
            shapley=mean.over_prompts(added),
            standard_error=mean.errors(added),
            order_error=order_error,
            removal=mean.over_prompts(values[whole] - values[without]),
            prompts=mean.there.sum(axis=0),
        )

    def _place(self, coalition: BoolArray) -> int:
        return int(np.flatnonzero((self.coalitions == coalition).all(axis=1))[0])


@dataclass(frozen=True, eq=False)
class Shares:
    """What each of E experts adds, in S columns; NaN where a column has no prompt with a score of every coalition.

    Attributes:
        base: Of no expert: the base model, `[S]`.
        policy: Of all, `[S]`.
        shapley: `[E, S]`; they add up to `policy - base`.
        standard_error: Of the Shapley values over prompts, `[E, S]`.
        order_error: Of them over orders of joining, `[E, S]`; None where all coalitions were scored.
        removal: What the whole loses without one expert, `[E, S]`.
        prompts: How many count, `[S]`.
    """

    base: FloatArray
    policy: FloatArray
    shapley: FloatArray
    standard_error: FloatArray
    order_error: FloatArray | None
    removal: FloatArray
    prompts: NDArray[np.int64]


def _all_but_one(experts: int) -> BoolArray:
    """Return the coalitions that lack one expert, in their order, `[E, E]`."""
    return np.asarray(~np.eye(experts, dtype=np.bool_))
