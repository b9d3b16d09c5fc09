"""Contextual DynaOpt: which weight to raise depends on the weights and on what each objective gained last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from paretune.bandits.linucb import Arms, chosen, fresh, updated, upper_bounds
from paretune.bandits.payoffs import scaled
from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.methods.per_preference import best_trained
from paretune.methods.pulls import PAYOFFS, Factors, FactorSettings, Pulls, pulled_stages
from paretune.rl.weighting import Seen

PAID = ("all", "first")


@dataclass(frozen=True)
class ContextualDynaOptSettings(FactorSettings):
    """Settings of `ContextualDynaOpt`, beside those of its policies and of its pulls."""

    paid: str = "all"  # gain of the preference's utility; or first: of the first objective alone, as published
    optimism: float = 0.5  # alpha of LinUCB, of payoffs from -1/2 to 1/2; ours, not tuned
    ridge: float = 1.0  # prior of each arm's regression

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("paid", self.paid, PAID)
        if not 0 <= self.optimism < np.inf or not 0 < self.ridge < np.inf:
            raise ConfigError(
                f"optimism must not be negative and ridge must be positive, got {self.optimism} and {self.ridge}. Try "
                "0.5 and 1.0."
            )


class ContextualBandit:
    """Objective weights of one policy: every few updates LinUCB pulls "raise objective i" or "raise nothing".

    Its context are the weights, the last gain of each wanted objective, each mapped to [-1/2, 1/2] by its past ones,
    and a constant.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, preference: FloatArray, settings: Mapping[str, Any], ranges: FloatArray) -> None:
        self.settings, self.pulls = settings, Pulls(preference, settings)
        self.factors = Factors(preference, settings)
        self.raisable = self.pulls.wanted  # arm a raises objective raisable[a], the last arm none
        wanted = len(self.raisable)
        self.known = fresh(wanted + 1, 2 * wanted + 1, settings["ridge"])
        self.gained: list[list[float]] = [[] for _ in self.raisable]  # past gains of each wanted objective
        self.pulled: tuple[int, FloatArray] | None = None  # arm, and the context it was pulled in

    def measured(self, update: int) -> int:
        """Measure before each pull, if there is more than one objective to weigh."""
        return self.pulls.due(update)

    def weigh(self, seen: Seen) -> FloatArray:
        """Pay and pull if development completions were made; return the weights `[K]`."""
        if seen.development is not None:
            gains = self.pulls.gains(seen.development)
            self._pay(gains, seen.generator)
            self._pull(gains, seen.generator)
        return self.factors.weights

    def _pay(self, gains: FloatArray, generator: np.random.Generator) -> None:
        if self.pulled is None:
            return
        gain = float(gains[0]) if self.settings["paid"] == "first" else self.pulls.utility(gains)
        payoff = self.pulls.centred(gain, generator)
        if payoff is not None:
            self.known = updated(self.known, *self.pulled, payoff)

    def _pull(self, gains: FloatArray, generator: np.random.Generator) -> None:
        moves = np.zeros(len(self.raisable))  # 0: what is not known says nothing
        for place, gain in enumerate(gains[self.raisable]):
            if np.isfinite(gain):
                moves[place] = scaled(gain, self.gained[place]) - 0.5
                self.gained[place] = [*self.gained[place], float(gain)][-PAYOFFS:]
        context = np.concatenate([self.factors.weights[self.raisable], moves, [1.0]])
        arm = chosen(upper_bounds(self.known, context, self.settings["optimism"]), generator)
        self.pulled = (arm, context)
        self.factors.pull(int(self.raisable[arm]) if arm < len(self.raisable) else None)

    def state(self) -> dict[str, object]:
        """Return the regressions, the factors and what was measured."""
        pulled = None if self.pulled is None else [self.pulled[0], self.pulled[1].tolist()]
        return {
            "inverses": self.known.inverses.tolist(), "sums": self.known.sums.tolist(), "pulled": pulled,
            "gained": self.gained, "factors": self.factors.logs.tolist(), **self.pulls.state(),
        }  # fmt: skip

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.known = Arms(np.asarray(state["inverses"], np.float64), np.asarray(state["sums"], np.float64))
        pulled = state["pulled"]
        self.pulled = None if pulled is None else (int(pulled[0]), np.asarray(pulled[1], np.float64))
        self.gained, self.factors.logs = state["gained"], np.asarray(state["factors"], np.float64)
        self.pulls.load(state)


@method("contextual_dynaopt", "single-policy")
class ContextualDynaOpt:
    """Train policies whose objective weights a contextual bandit adjusts on the way, paid by all that they gain.

    Source:
        Min, Pérez-Rosas, Resnicow and Mihalcea 2024 (C-DynaOpt); details from its code. Li et al. 2010 for LinUCB.

    Departures:
        The payoff is the gain of `w . scores`, in [0, 1] by quantiles of past payoffs less 1/2. The published code is
        paid for its *first* objective only, whatever the others do; `paid: first` does so too. LinUCB with an arm's own
        ridge regression each, exact after every pull, in the place of Vowpal Wabbit's cover of policies. Any K; the
        published context is hard-coded to three objectives. One policy per preference; objectives that are not wanted
        have no arm and are not in the context, and a corner is trained as by `linear`. Weights are preference times
        factors that fade, as `dynaopt` repaired, and the first measurement is before any update. Development
        completions are charged.
    """

    settings: ContextualDynaOptSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return one expert per trained preference.

        Raises:
            BudgetError: If a policy could not be measured and trained.
        """
        return pulled_stages(self.settings, ContextualBandit, preferences, budget, seed)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer a trained preference with its own policy, any other with the one estimated best for it."""
        return best_trained(task, results)
