"""DynaOpt: a bandit moves the objective weights while a policy learns, paid by what development scores gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from paretune.bandits.exp3 import draw, probabilities, updated
from paretune.core.checks import check_choice
from paretune.core.errors import BudgetError, ConfigError
from paretune.core.preferences import FloatArray, centre
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.methods.experts import expert_stage, split_budget
from paretune.methods.per_preference import PerPreferenceSettings, best_trained, planned_policies
from paretune.rl.weighting import Seen

MODES = ("faithful", "repaired")
PAYOFFS = 20  # past ones that a payoff is scaled by: gains shrink as training goes on, so old ones say little
LOW, HIGH = 0.2, 0.8  # quantiles of them that become 0 and 1; DORB, and present but unused in DynaOpt's code


@dataclass(frozen=True)
class DynaOptSettings(PerPreferenceSettings):
    """Settings of `DynaOpt`, beside those of its policies."""

    mode: str = "repaired"  # or faithful: as published, one policy that ignores the preference
    updates_per_pull: int = 4  # published: 10, of 1,000; a policy here makes some 20 to 60
    measured_each: int = 32  # development completions a pull, charged, about a tenth of all; published: up to 200
    history: int = 200  # stored development completions that a pull's are compared with, as published
    gamma: float = 0.07  # exploration of the bandits, as published; faithful: also how fast they learn
    arm_learning_rate: float = 1.0  # repaired: eta of the drawing bandit; docs/papers.md
    step: float = 0.2  # repaired: what a draw adds to the log weight of its objective
    fading: float = 0.8  # repaired: what is left of it at the next pull, so no factor exceeds e^(.2 / (1 - .8)) = 2.7

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("mode", self.mode, MODES)
        if self.updates_per_pull < 1 or self.history < 1:
            raise ConfigError(
                f"updates_per_pull and history must be at least 1, got {self.updates_per_pull} and {self.history}. "
                "Try 4 and 200."
            )
        if self.measured_each < 1 or self.measured_each % self.group_size:
            raise ConfigError(
                f"measured_each must be a positive multiple of group_size ({self.group_size}), so that budgets come "
                f"out even, got {self.measured_each}. Try {4 * self.group_size}."
            )
        if not 0 < self.gamma <= 1:
            raise ConfigError(f"gamma must be above 0 and at most 1, got {self.gamma}. Try 0.07.")
        if not 0 < self.arm_learning_rate < np.inf or not 0 < self.step < np.inf:
            raise ConfigError(
                f"arm_learning_rate and step must be positive, got {self.arm_learning_rate} and {self.step}. Try 1.0 "
                "and 0.2."
            )
        if not 0 <= self.fading < 1:
            raise ConfigError(f"fading must be at least 0 and below 1, got {self.fading}. Try 0.8.")


class NestedBandits:
    """Objective weights of one policy: every few updates an arm is drawn, "raise objective i" or "raise nothing".

    The arm drawn before is paid first, by how much the mean scores of development completions have gained on those of
    the last `history` stored ones. Where a score is missing of an objective that counts, nothing is paid.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, preference: FloatArray, settings: Mapping[str, Any], ranges: FloatArray) -> None:
        self.settings, self.ranges, self.repaired = settings, ranges, settings["mode"] == "repaired"
        self.preference = np.asarray(preference, np.float64) if self.repaired else centre(len(preference))
        self.raisable = np.flatnonzero(self.preference > 0)  # arm a raises objective raisable[a], the last arm none
        self.arms = np.zeros(len(self.raisable) + 1)  # log weights of the bandit that draws
        self.factors = np.zeros(len(preference))  # log weights of the objectives
        self.drawn: int | None = None
        self.scores: list[list[float | None]] = []  # stored development scores, oldest first
        self.payoffs: list[float] = []  # repaired: past ones, oldest first

    def measured(self, update: int) -> int:
        """Measure before each pull, if there is more than one objective to weigh; published, none before update 0."""
        pull = update % self.settings["updates_per_pull"] == 0 and (update > 0 or self.repaired)
        return int(self.settings["measured_each"]) if pull and len(self.raisable) > 1 else 0

    def weigh(self, seen: Seen) -> FloatArray:
        """Pay and draw if development completions were made, or nothing was drawn yet; return the weights `[K]`."""
        if seen.development is not None:
            self._pay(seen.development if self.repaired else self._clipped(seen.development))
        if seen.development is not None or self.drawn is None:
            self._draw(seen.generator)
        if not self.repaired and not self.factors.any():
            return np.ones_like(self.factors)  # as published: they sum to K until something is raised, then to 1
        weights = self.preference * np.exp(self.factors - self.factors.max())
        return np.asarray(weights / weights.sum())

    def _clipped(self, rewards: FloatArray) -> FloatArray:
        from paretune.rl.shaping import HIGHEST, LOWEST

        low, high = self.ranges.T
        return np.asarray(np.clip((rewards - low) / (high - low), LOWEST, HIGHEST))

    def _pay(self, scores: FloatArray) -> None:
        before = np.asarray(self.scores, dtype=np.float64).reshape(-1, len(self.preference))  # None becomes NaN
        gains = _means(scores) - _means(before)
        gain = float(self.preference[self.raisable] @ gains[self.raisable])
        if self.drawn is not None and np.isfinite(gain):
            gamma = self.settings["gamma"]
            if self.repaired:  # less a half: a payoff in the middle of what was seen says nothing for or against
                centred, rate = scaled(gain, self.payoffs) - 0.5, self.settings["arm_learning_rate"]
                self.arms = updated(self.arms, self.drawn, centred, gamma, rate)
                self.payoffs = [*self.payoffs, gain][-PAYOFFS:]
            else:
                self.arms = updated(self.arms, self.drawn, gain, gamma)
        rows = [[None if np.isnan(score) else float(score) for score in row] for row in scores]
        self.scores = [*self.scores, *rows][-self.settings["history"] :]

    def _draw(self, generator: np.random.Generator) -> None:
        gamma = self.settings["gamma"]
        self.drawn = draw(probabilities(self.arms, gamma), generator)
        if self.repaired:
            self.factors = self.factors * self.settings["fading"]
        if self.drawn < len(self.raisable):
            objective = int(self.raisable[self.drawn])
            if self.repaired:
                self.factors[objective] += self.settings["step"]
            else:  # a second Exp3, paid 1 for the objective whatever comes of it
                self.factors = updated(self.factors, objective, 1.0, gamma)

    def state(self) -> dict[str, object]:
        """Return both bandits and what was measured."""
        return {
            "arms": self.arms.tolist(),
            "factors": self.factors.tolist(),
            "drawn": self.drawn,
            "scores": self.scores,
            "payoffs": self.payoffs,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.arms, self.factors = np.asarray(state["arms"], np.float64), np.asarray(state["factors"], np.float64)
        self.drawn, self.scores, self.payoffs = state["drawn"], state["scores"], state["payoffs"]


def scaled(payoff: float, past: Sequence[float]) -> float:
    """Map a payoff to [0, 1] by quantiles of past ones; .5 where these do not tell low from high.

    Example:
        >>> round(scaled(0.35, [0.0, 1.0]), 2), scaled(-3.0, [0.0, 1.0]), scaled(0.35, [])
        (0.25, 0.0, 0.5)
    """
    low, high = np.quantile(past, [LOW, HIGH]) if past else (0.0, 0.0)
    return float(np.clip((payoff - low) / (high - low), 0, 1)) if high > low else 0.5


def _means(scores: FloatArray) -> FloatArray:
    """Return the mean of each column `[K]` over what is not missing; NaN where all is."""
    present = ~np.isnan(scores)
    counts = present.sum(axis=0)
    sums = np.where(present, scores, 0.0).sum(axis=0)
    return np.asarray(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))


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
        weighting = f"{NestedBandits.__module__}:{NestedBandits.__qualname__}"
        if self.settings.mode == "repaired":
            planned = planned_policies(self.settings, preferences, budget)
            least = self.settings.measured_each + self.settings.group_size
            if min(length for _, length in planned) < least:
                raise BudgetError(
                    f"budget must give each of {len(planned)} policies a measurement and a group, {least} completions, "
                    f"got {budget}. Raise it, or lower measured_each ({self.settings.measured_each})."
                )
            return tuple(expert_stage(self.settings, row, length, seed, weighting=weighting) for row, length in planned)
        length = split_budget(budget, 1, self.settings.group_size)[0]
        return (
            expert_stage(
                self.settings, centre(len(task.objectives)), length, seed, weighting=weighting,
                advantages="paretune.rl.advantages:k_sample_mean", shaping="paretune.rl.shaping:log_clip",
            ),
        )  # fmt: skip

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer a trained preference with its own policy, any other with the one estimated best; faithful has one."""
        return best_trained(task, results)
