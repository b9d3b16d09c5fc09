"""Thresholds: what exceeds an objective's threshold counts little, for each completion or for what is expected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, method
from paretune.core.settings import check_read, check_unread
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.methods.experts import PLANNING
from paretune.methods.objective_values import check_values, values_of
from paretune.methods.per_preference import (
    PerPreferenceSettings,
    TrainedUtility,
    best_trained,
    check_beta_stays,
    nearest_trained,
    planned_experts,
)
from paretune.pareto.scalarisation import bent_scores, threshold_slopes
from paretune.rl.running_returns import RunningReturns, check_memory
from paretune.rl.weighting import Seen

if TYPE_CHECKING:
    from torch import Tensor

LEVELS = ("completion", "expected")


@dataclass(frozen=True)
class ThresholdsSettings(PerPreferenceSettings):
    """Settings of `Thresholds`, beside those of one policy per preference."""

    level: str = "completion"  # E u(r), each completion is to reach them; or expected: u(E r), their mean is to
    # by objective; else its pass threshold, else the middle of its range
    thresholds: dict[str, float] = field(default_factory=dict, metadata=PLANNING)
    unit: str = field(default="reward", metadata=PLANNING)  # of thresholds; or share: of the range, from 0 to 1
    beyond: float = 0.1  # what a gain above the threshold counts, of one below; ours: 0 leaves nothing to learn there
    memory: float = 0.8  # expected: share of the estimated returns that an update leaves

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("level", self.level, LEVELS)
        check_read(self, "level", {"memory": ("expected",)})
        if not self.thresholds:
            check_unread(self, ("unit",), "without thresholds")
        check_values("thresholds", self.thresholds, self.unit)
        if not 0 < self.beyond < 1:
            raise ConfigError(f"beyond must be above 0 and below 1, got {self.beyond}. Try 0.1.")
        check_memory(self.memory)
        if self.level == "expected":
            check_beta_stays(self.target_kl, "for thresholds at level expected")


class ThresholdShaping:
    """Rewards of one member's completions, bent at the thresholds."""

    def __init__(self, preference: FloatArray, settings: Mapping[str, Any], ranges: FloatArray) -> None:
        self.limits, self.beyond = settings["threshold_point"], settings["beyond"]
        self.shaped_ranges = ranges  # thresholds lie within them

    def shape(self, rewards: Tensor) -> Tensor:
        """Return `min(r_k, t_k) + b max(r_k - t_k, 0)`, `[B, K]`; NaN where a reward is missing."""
        limits = rewards.new_tensor(self.limits)
        bent: Tensor = rewards.minimum(limits) + self.beyond * (rewards - limits).clamp(min=0)
        return bent


class ThresholdWeights:
    """The slopes of the threshold utility at an estimate of `J_k = E r_k - beta KL`, divided by their sum."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, preference: FloatArray, settings: Mapping[str, Any], ranges: FloatArray) -> None:
        self.preference, self.settings = np.asarray(preference, np.float64), settings
        self.returns = RunningReturns(ranges.mean(axis=1), settings["memory"])

    def measured(self, update: int) -> int:
        """Measure nothing: training completions tell the returns."""
        return 0

    def weigh(self, seen: Seen) -> FloatArray:
        """Take in the returns of this update, and return the weights, `[K]`."""
        scores = self.returns.add(seen.returns - self.settings["beta"] * seen.kl)
        limits, beyond = self.settings["threshold_point"], self.settings["beyond"]
        slopes = threshold_slopes(scores, self.preference, limits, beyond)
        return np.asarray(slopes / slopes.sum())

    def state(self) -> dict[str, object]:
        """Return the estimates."""
        return self.returns.state()

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.returns.load(state)


@method("thresholds", "single-policy", version=2)
class Thresholds:
    """Train one policy per wanted preference for objectives that are good enough from a threshold on.

    The utility is `u(s) = sum_k w_k (min(s_k, t_k) + b max(s_k - t_k, 0))`: of each completion's rewards, `E u(r)`, or
    of what is expected, `u(E r)`. They differ: half of all completions perfect and half useless is enough on average
    and seldom in one.

    Source:
        Roijers et al. 2013 for the two levels (expected scalarised returns, scalarised expected returns); Simon 1955
        for what is good enough.

    Departures:
        A gain above a threshold counts a little, or a policy that has reached all has nothing to learn from. Under
        `expected` the utility is of `J_k = E r_k - beta KL`: there the slopes divided by their sum weigh gradients that
        each have the whole KL in it, and a threshold is met after the KL is paid, with the task's beta (`target_kl` is
        refused). Under `completion` KL is paid beside the utility.
    """

    settings: ThresholdsSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return one expert per trained preference.

        Raises:
            ConfigError: If thresholds name no objective of the task, or lie outside of its rewards.
        """
        own = self.settings
        by_level: dict[str, Any] = {
            "completion": {"shaping": ThresholdShaping},
            "expected": {"weighting": ThresholdWeights, "beta": task.beta},
        }
        return planned_experts(
            own, preferences, budget, seed, threshold_point=self._limits(task), **by_level[own.level]
        )

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer a trained preference with its own policy, any other with the one of the best estimated utility.

        Mean returns do not tell the utility of single completions: there the nearest policy answers.
        """
        if self.settings.level == "completion":
            return nearest_trained(results)
        limits, beyond = self._limits(task), self.settings.beyond
        own = TrainedUtility(lambda scores, kl: bent_scores(scores - task.beta * kl[:, None], limits, beyond))
        return best_trained(task, results, own)

    def _limits(self, task: Task) -> list[float]:
        """Return the threshold of each objective, `[K]`."""
        found = values_of("thresholds", self.settings.thresholds, self.settings.unit, task)
        limits = []
        for objective, given in zip(task.objectives, found, strict=True):
            middle = sum(objective.range) / 2 if objective.pass_threshold is None else objective.pass_threshold
            limits.append(float(middle if given is None else given))
        return limits
