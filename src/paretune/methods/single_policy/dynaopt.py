"""DynaOpt: a bandit moves the objective weights while a policy learns, paid by what development scores gain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from paretune.bandits.exp3 import draw, probabilities, updated
from paretune.core.checks import check_choice
from paretune.core.preferences import FloatArray, centre
from paretune.core.protocols import Assembly, method
from paretune.core.settings import check_unread
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.core.user_calls import where_found
from paretune.methods.experts import expert_stage, split_budget
from paretune.methods.per_preference import best_trained
from paretune.methods.pulls import Exp3Settings, Factors, FactorSettings, Pulls, pulled_stages
from paretune.rl.weighting import Seen

MODES = ("faithful", "repaired")
NOT_PUBLISHED = ("advantages", "step", "fading", "arm_learning_rate")  # settings that faithful has no use for


@dataclass(frozen=True)
class DynaOptSettings(FactorSettings, Exp3Settings):
    """Settings of `DynaOpt`, beside those of its policies and of its pulls.

    Faithful learns with rate `gamma`, and refuses settings that it does not read; but `completions_each`, which means
    nothing to a single policy: a study may sweep over it for all of its methods.
    """

    mode: str = "repaired"  # or faithful: as published, one policy that ignores the preference

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("mode", self.mode, MODES)
        if self.mode == "faithful":
            published = "It trains as the published code does: with k_sample_mean, a rate of gamma, and weights that "
            check_unread(self, NOT_PUBLISHED, "in mode 'faithful'", f"{published}never fade.")


class NestedBandits:
    """Objective weights of one policy: every few updates an arm is drawn, "raise objective i" or "raise nothing".

    The arm drawn before is paid first, by how much the mean scores of development completions have gained on those of
    the last `history` stored ones. Where a score is missing of an objective that counts, nothing is paid.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, preference: FloatArray, settings: Mapping[str, Any], ranges: FloatArray) -> None:
        self.settings, self.ranges, self.repaired = settings, ranges, settings["mode"] == "repaired"
        self.preference = np.asarray(preference, np.float64) if self.repaired else centre(len(preference))
        self.pulls = Pulls(self.preference, settings)
        self.raisable = self.pulls.wanted  # arm a raises objective raisable[a], the last arm none
        self.arms = np.zeros(len(self.raisable) + 1)  # log weights of the bandit that draws
        self.factors = Factors(self.preference, settings)
        self.drawn: int | None = None

    def measured(self, update: int) -> int:
        """Measure before each pull, if there is more than one objective to weigh; published, none before update 0."""
        return self.pulls.due(update) if update > 0 or self.repaired else 0

    def weigh(self, seen: Seen) -> FloatArray:
        """Pay and draw if development completions were made, or nothing was drawn yet; return the weights `[K]`."""
        if seen.development is not None:
            self._pay(seen.development if self.repaired else self._clipped(seen.development), seen.generator)
        if seen.development is not None or self.drawn is None:
            self._draw(seen.generator)
        if not self.repaired and not self.factors.logs.any():
            return np.ones(len(self.preference))  # as published: they sum to K until something is raised, then to 1
        return self.factors.weights

    def _clipped(self, rewards: FloatArray) -> FloatArray:
        from paretune.rl.shaping import HIGHEST, LOWEST

        low, high = self.ranges.T
        return np.asarray(np.clip((rewards - low) / (high - low), LOWEST, HIGHEST))

    def _pay(self, scores: FloatArray, generator: np.random.Generator) -> None:
        gain = self.pulls.utility(self.pulls.gains(scores))
        if self.drawn is None:
            return
        gamma = self.settings["gamma"]
        if self.repaired:
            payoff, rate = self.pulls.centred(gain, generator), self.settings["arm_learning_rate"]
        else:
            payoff, rate = self.pulls.told(gain, generator), gamma
        if payoff is not None:
            self.arms = updated(self.arms, self.drawn, payoff, gamma, rate)

    def _draw(self, generator: np.random.Generator) -> None:
        gamma = self.settings["gamma"]
        self.drawn = draw(probabilities(self.arms, gamma), generator)
        objective = int(self.raisable[self.drawn]) if self.drawn < len(self.raisable) else None
        if self.repaired:
            self.factors.pull(objective)
        elif objective is not None:  # a second Exp3, paid 1 for the objective whatever comes of it
            self.factors.logs = updated(self.factors.logs, objective, 1.0, gamma)

    def state(self) -> dict[str, object]:
        """Return both bandits and what was measured."""
        arms, factors = self.arms.tolist(), self.factors.logs.tolist()
        return {"arms": arms, "factors": factors, "drawn": self.drawn, **self.pulls.state()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.arms, self.factors.logs = np.asarray(state["arms"], np.float64), np.asarray(state["factors"], np.float64)
        self.drawn = state["drawn"]
        self.pulls.load(state)


@method("dynaopt", "single-policy")
class DynaOpt:
    """Train policies whose objective weights a bandit adjusts on the way, as published (`faithful`) or `repaired`.

    Source:
        Min, Pérez-Rosas, Resnicow and Mihalcea 2024, Dynamic Reward Adjustment in Multi-Reward Reinforcement Learning
        for Counselor Reflection Generation; details from its code (MichiganNLP/dynaopt).

    Departures:
        Faithful keeps arms, payoff, both Exp3 (as logarithms), the sum of weights that drops from K to 1, log-clipped
        rewards and a baseline that counts the own sample. Other than published are:
        - The KL penalty has a gradient, with the library's leave-one-out baseline.
        - Low-rank experts on the task's model; no full fine-tuning, no warm start on references.
        - The library's learner: groups, optimiser, clipping; loss on the sampled tokens and their end, not on text
          that was encoded again; temperature 1, no thermostat.
        - Rewards are mapped to [0, 1] by their declared range; published ones lie there.
        - Development completions are charged, fewer and more often: budgets are smaller.
        - A missing reward is left out, and a pull that no gain can be told of is not paid.
        - One policy answers every preference, as none is known to it; the centre stands for what it is trained for.

        Repaired, beside these:
        - One policy per preference, leave-one-out advantages and no logarithm: what rises is `w . r`, which is what a
          preference asks for.
        - The payoff is the gain of `w . scores`, not of their plain mean, in [0, 1] by quantiles of past payoffs, less
          1/2. Published gains are some hundredths, from which Exp3 learns nothing in a whole run, and while training
          goes well a gain speaks for any arm.
        - The bandit's rate of learning is not gamma, so that it can learn without exploring at random.
        - Weights are the normalised product of preference and factors: an objective that is not wanted gets none, a
          corner is trained as by `linear`, and where no arm pays weights stay around the preference. Published ones
          stay around equal weights. The sum is 1 from the start.
        - What a draw adds to a factor fades, so that weights fall as well as rise, within bounds. The published second
          bandit is paid 1 for every draw, so that none is ever taken back.
        - The first measurement is before any update, so that the first pull is paid.
    """

    settings: DynaOptSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return one expert per trained preference; faithful, one expert whatever is wanted.

        Raises:
            BudgetError: If a policy could not be measured and trained.
        """
        if self.settings.mode == "repaired":
            return pulled_stages(self.settings, NestedBandits, preferences, budget, seed)
        length = split_budget(budget, 1, self.settings.group_size)[0]
        return (
            expert_stage(
                self.settings, centre(len(task.objectives)), length, seed, weighting=where_found(NestedBandits),
                advantages="k_sample_mean", shaping="paretune.rl.shaping:log_clip",
            ),
        )  # fmt: skip

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer a trained preference with its own policy, any other with the one estimated best; faithful has one."""
        return best_trained(task, results)
