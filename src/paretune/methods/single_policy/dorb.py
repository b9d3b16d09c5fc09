"""DORB: one objective at a time is trained, and Exp3 chooses which by how well all are doing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from paretune.bandits.exp3 import draw, probabilities, updated
from paretune.bandits.payoffs import fed_back, scaled
from paretune.core.checks import check_choice
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.methods.per_preference import best_trained
from paretune.methods.pulls import PAYOFFS, Exp3Settings, Pulls, kept, means, pulled_stages
from paretune.rl.weighting import Seen

VARIANTS = ("single", "hierarchical")


@dataclass(frozen=True)
class DORBSettings(Exp3Settings):
    """Settings of `DORB`, beside those of its policies and of its pulls."""

    variant: str = "single"  # one bandit (SM), or hierarchical: one for each objective that lags (HM)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("variant", self.variant, VARIANTS)


class OneAtATime:
    """Weights that are 1 for one objective and 0 for all others, until the next pull.

    The bandit in charge pays for the level of development scores, mapped to [0, 1] by quantiles of past levels: of the
    preference's utility, or, hierarchical, of the objective whose bandit it is. There the objective in charge is the
    one whose level stands lowest among its own past ones, which is the one that lags.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, preference: FloatArray, settings: Mapping[str, Any], ranges: FloatArray) -> None:
        self.settings, self.pulls = settings, Pulls(preference, settings)
        self.objectives, self.arms = len(self.pulls.preference), self.pulls.wanted
        bandits = len(self.arms) if settings["variant"] == "hierarchical" else 1
        self.logs = np.zeros((bandits, len(self.arms)))  # log weights of each bandit
        self.levels: list[list[float]] = [[] for _ in range(bandits)]  # past ones of what pays it, oldest first
        self.earlier: list[list[float]] = [[] for _ in range(bandits)]  # where they stood then, for the control
        self.pulled: list[int] | None = None  # bandit, arm

    def measured(self, update: int) -> int:
        """Measure before each pull, if there is more than one objective to choose from."""
        return self.pulls.due(update)

    def weigh(self, seen: Seen) -> FloatArray:
        """Pay and pull if development completions were made, or nothing was pulled yet; return the weights `[K]`."""
        if seen.development is not None:
            self._pull(self._paid(means(seen.development), seen.generator), seen.generator)
        elif self.pulled is None:
            self._pull(np.zeros(len(self.logs)), seen.generator)
        weights = np.zeros(self.objectives)
        weights[self.arms[(self.pulled or [0, 0])[1]]] = 1
        return weights

    def _paid(self, scores: FloatArray, generator: np.random.Generator) -> FloatArray:
        """Pay the bandit that pulled; return where each bandit's level stands among past ones, 1/2 if not known."""
        single = len(self.logs) == 1
        now = [self.pulls.utility(scores)] if single else scores[self.arms].tolist()
        standing = np.full(len(self.logs), 0.5)
        for bandit, level in enumerate(now):
            past = self.levels[bandit]
            if not np.isfinite(level):
                continue
            due, feedback = scaled(level, past), self.settings["feedback"]
            if self.pulled is not None and self.pulled[0] == bandit:
                payoff = fed_back(due, self.earlier[bandit], feedback, generator)
                if payoff is not None:
                    gamma, rate = self.settings["gamma"], self.settings["arm_learning_rate"]
                    self.logs[bandit] = updated(self.logs[bandit], self.pulled[1], payoff, gamma, rate)
            standing[bandit], self.levels[bandit] = due, [*past, level][-PAYOFFS:]
            self.earlier[bandit] = kept([*self.earlier[bandit], due], feedback)
        return standing

    def _pull(self, standing: FloatArray, generator: np.random.Generator) -> None:
        lagging = np.flatnonzero(standing == standing.min())
        bandit = int(lagging[min(int(generator.random() * len(lagging)), len(lagging) - 1)])
        self.pulled = [bandit, draw(probabilities(self.logs[bandit], self.settings["gamma"]), generator)]

    def state(self) -> dict[str, object]:
        """Return the bandits and past levels."""
        logs = self.logs.tolist()
        return {"logs": logs, "levels": self.levels, "earlier": self.earlier, "pulled": self.pulled}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.logs, self.pulled = np.asarray(state["logs"], np.float64), state["pulled"]
        self.levels, self.earlier = state["levels"], state["earlier"]


@method("dorb", "single-policy")
class DORB:
    """Train policies on one objective at a time, chosen by Exp3 from how well development prompts are answered.

    Source:
        Pasunuru, Guo and Bansal 2020, DORB: Dynamically optimizing multiple rewards with bandits: a single bandit
        (SM), and a first level that finds the objective that lags, above a bandit for each (HM).

    Departures:
        The payoff is the published one: the level, mapped by the 20 % and 80 % quantiles of past levels. While training
        goes well nearly every level is above those and pays 1, whatever was pulled; that is kept. One policy per
        preference: the single bandit is paid by `w . scores` (published: the plain mean), arms are the wanted
        objectives, and a corner is trained as by `linear`. The first level takes the lowest standing, with ties by
        chance. Exp3 learns faster than it explores. Development completions are charged.
    """

    settings: DORBSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return one expert per trained preference.

        Raises:
            BudgetError: If a policy could not be measured and trained.
        """
        return pulled_stages(self.settings, OneAtATime, preferences, budget, seed)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer a trained preference with its own policy, any other with the one estimated best for it."""
        return best_trained(task, results)
