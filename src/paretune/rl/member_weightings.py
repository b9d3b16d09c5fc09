"""The weightings of all members: what each member has seen in an update, and how its objectives are weighed then."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError, ShapeError
from paretune.core.preferences import FloatArray
from paretune.core.seeds import generator
from paretune.rl.gradient_step import GradientStep
from paretune.rl.trainees import Trainee
from paretune.rl.weighting import Seen, Weighting, check_weights, step_rule_of

NEEDS = ("gram",)  # what a weighting may ask for beside what it always sees


class MemberWeightings:
    """The weightings of a trainee's members; without any, rows are weighed by their preferences.

    Attributes:
        each: One of each member, or none at all.
        needs_gram: Whether weights are chosen from the inner products of the objectives' gradients.
        step_rule: How steps are taken then.
    """

    def __init__(self, trainee: Trainee, weightings: Sequence[Weighting]) -> None:
        """Take the weightings of a trainee's members.

        Raises:
            ShapeError: If there is not one for each member.
            ConfigError: If rows of one member have preferences of their own, which no weighting may overrule, or
                weightings want steps of different kinds, or of none that there is.
        """
        if weightings and len(weightings) != len(trainee.members):
            raise ShapeError(
                f"weightings must be one per member ({len(trainee.members)}), got {len(weightings)}. Make one for each."
            )
        if weightings and trainee.conditioned:
            raise ConfigError(
                "weighting must be left out where rows carry their own preferences, got "
                f"{type(weightings[0]).__name__}. Train one policy per preference with it."
            )
        self.each, self.trainee = list(weightings), trainee
        for weighting in self.each:
            for need in weighting.needs:
                check_choice(f"need of {type(weighting).__name__}", need, NEEDS)
        self.needs_gram = any("gram" in each.needs for each in self.each)
        rules = {step_rule_of(each) for each in self.each} or {GradientStep()}
        if len(rules) > 1:
            raise ConfigError(
                f"step_rule must be the same for all members, got {len(rules)} of them. Train one population with each."
            )
        self.step_rule: GradientStep = rules.pop()
        self._seen: dict[int, dict[str, Any]] = {}

    def measured(self, member: int) -> Callable[[int], int]:
        """Return how many completions of development prompts a member wants before each update."""
        if not self.each:
            return lambda update: 0
        return self.each[member].measured

    def see(
        self,
        active: Sequence[int],
        updates: Sequence[int],
        rewards: Tensor,
        kl: Tensor,
        development: FloatArray | None,
    ) -> None:
        """Keep what the active members' weightings may look at.

        Args:
            active: Members, in the order of their rows.
            updates: Updates made by each member of the trainee.
            rewards: `[B, K]`, NaN where missing.
            kl: `[B]`.
            development: Rewards of completions of development prompts `[R, N, K]`, or None.
        """
        if not self.each:
            return
        each = len(rewards) // len(active)
        for place, index in enumerate(active):
            own = slice(place * each, (place + 1) * each)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # an objective without any reward has the mean NaN
                returns = np.nanmean(rewards[own].numpy(), axis=0)
            self._seen[index] = {
                "update": updates[index],
                "preference": self.trainee.members[index].objective_weights.copy(),
                "returns": returns,
                "kl": float(kl[own].mean()),
                "development": None if development is None else development[place].copy(),
                "generator": generator(self.trainee.members[index].seed, "weighting", updates[index]),
            }

    def weigh(self, active: Sequence[int], grams: NDArray[np.float64] | None = None) -> FloatArray:
        """Ask the weightings of the active members, `[R, K]`; with the members' Gram matrices `[R, K, K]`.

        With them, several times an update: before each of its steps. The generator goes on from one to the next.
        """
        rows = []
        for place, index in enumerate(active):
            weighting, seen = self.each[index], self._seen[index]
            gram = None if grams is None else grams[place]
            weights = weighting.weigh(Seen(**seen, gram=gram))
            rows.append(check_weights(weights, len(seen["preference"]), type(weighting).__name__))
        return np.stack(rows)

    def rows(self, active: Sequence[int], preferences: FloatArray) -> FloatArray:
        """Return the objective weights of every row `[B, K]`, where they need no gradients."""
        if not self.each:
            return preferences
        return self.weigh(active).repeat(len(preferences) // len(active), axis=0)

    def state(self, member: int) -> dict[str, object]:
        """Return a member's weighting as plain data."""
        return copy.deepcopy(dict(self.each[member].state())) if self.each else {}  # it may be its own

    def load(self, member: int, state: Mapping[str, object]) -> None:
        """Take over `state`."""
        if self.each:
            self.each[member].load(copy.deepcopy(dict(state)))
