"""Lagrangian thresholds: "at least .8 fluency, then maximise empathy", by multipliers that rise while one is missed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, method
from paretune.core.settings import check_unread
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.methods.experts import PLANNING
from paretune.methods.objective_values import check_values, values_of
from paretune.methods.per_preference import PerPreferenceSettings, nearest_trained, planned_experts
from paretune.rl.running_returns import RunningReturns, check_memory
from paretune.rl.weighting import Seen


@dataclass(frozen=True)
class LagrangianSettings(PerPreferenceSettings):
    """Settings of `Lagrangian`, beside those of one policy per preference."""

    thresholds: dict[str, float] = field(default_factory=dict, metadata=PLANNING)  # objective: least expected score
    unit: str = field(default="reward", metadata=PLANNING)  # of thresholds; or share: of the range, from 0 to 1
    slack: float = 0.02  # above a threshold within which multipliers rest, in shares of the range: about the noise
    dual_learning_rate: float = 1.0  # what a multiplier gains an update for a shortfall of the whole range
    damping: float = 2.0  # weight for a shortfall of the whole range as it is now; 0 swings about the threshold
    largest: float = 10.0  # multiplier: what cannot be met must not leave nothing for the rest for ever
    memory: float = 0.8  # share of the estimated returns that an update leaves

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.thresholds:
            check_unread(self, ("unit",), "without thresholds")
        check_values("thresholds", self.thresholds, self.unit)
        if not 0 <= self.slack < 1:
            raise ConfigError(f"slack must be at least 0 and below 1, got {self.slack}. Try 0.02.")
        if not 0 < self.dual_learning_rate < np.inf or not 0 < self.largest < np.inf:
            raise ConfigError(
                f"dual_learning_rate and largest must be positive, got {self.dual_learning_rate} and {self.largest}. "
                "Try 1.0 and 10.0."
            )
        if not 0 <= self.damping < np.inf:
            raise ConfigError(f"damping must not be negative, got {self.damping}. Try 2.0.")
        check_memory(self.memory)


class LagrangianWeights:
    """Preference plus multipliers, divided by their sum; the multipliers climb the dual."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, preference: FloatArray, settings: Mapping[str, Any], ranges: FloatArray) -> None:
        self.preference, self.settings = np.asarray(preference, np.float64), settings
        self.width = ranges[:, 1] - ranges[:, 0]
        self.limits = np.asarray(settings["threshold_point"], np.float64)  # NaN: no threshold
        self.returns = RunningReturns(ranges.mean(axis=1), settings["memory"])
        self.multipliers = np.zeros(len(self.preference))

    def measured(self, update: int) -> int:
        """Measure nothing: training completions tell the returns."""
        return 0

    def weigh(self, seen: Seen) -> FloatArray:
        """Take in the returns of this update, take a dual step, and return the weights, `[K]`."""
        lacking = (self.limits - self.returns.add(seen.returns)) / self.width
        known = ~np.isnan(self.limits) & (self.returns.counts > 0)
        # below the threshold they rise, above it and the slack they fall, between the two they rest
        moved = np.where(lacking > 0, lacking, np.minimum(lacking + self.settings["slack"], 0))
        moved = np.where(known, moved, 0)
        raised = self.multipliers + self.settings["dual_learning_rate"] * moved
        self.multipliers = np.clip(raised, 0, self.settings["largest"])
        weights = self.preference + np.maximum(self.multipliers + self.settings["damping"] * moved, 0)
        return np.asarray(weights / weights.sum())

    def state(self) -> dict[str, object]:
        """Return the multipliers and the estimates."""
        return {"multipliers": self.multipliers.tolist(), **self.returns.state()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.multipliers = np.asarray(state["multipliers"], np.float64)
        self.returns.load(state)


@method("lagrangian", "single-policy")
class Lagrangian:
    """Train one policy per wanted preference that keeps the expected scores of some objectives above thresholds.

    Source:
        Altman 1999, constrained Markov decision processes; Dai et al. 2024 (Safe RLHF) for language models; Stooke,
        Achiam and Abbeel 2020 for the proportional part that damps the multipliers' swing.

    Departures:
        Thresholds are on expected rewards, without the KL. Weights are preference plus multipliers *divided by their
        sum*, and the gradient of each objective has the whole of the KL in it: so the KL keeps its price whatever the
        multipliers, where in the Lagrangian itself it would shrink beside them. What the best policy for an objective
        alone does not reach under that price is therefore missed, and the policy then tends to that objective's own.
        Multipliers are additive (Safe RLHF: their logarithms), stop at `largest`, and rest while an estimate is within
        the slack above its threshold, so that noise does not move them.
    """

    settings: LagrangianSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return one expert per trained preference.

        Raises:
            ConfigError: If there is no threshold, or one names no objective of the task or lies outside its rewards.
        """
        own = self.settings
        if not own.thresholds:
            raise ConfigError(
                "thresholds of lagrangian must name at least one objective, got none. Write thresholds: "
                f"{{{task.objective_names[0]}: 0.8}}, or use linear."
            )
        found = values_of("thresholds", own.thresholds, own.unit, task)
        return planned_experts(own, preferences, budget, seed, LagrangianWeights, threshold_point=found)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the policy trained for the nearest preference."""
        return nearest_trained(results)
