"""Schedules: objective weights that a calendar or chance sets, whatever is wanted and whatever comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray, centre
from paretune.core.protocols import Assembly, method
from paretune.core.settings import check_read
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.core.user_calls import where_found
from paretune.methods.experts import ExpertSettings, expert_stage, split_budget
from paretune.methods.per_preference import best_trained
from paretune.rl.weighting import Seen

KINDS = ("uniform", "round_robin", "blocks", "random")
DRAWS = ("normal", "dirichlet")
PUBLISHED_UPDATES = 1000  # of a run of DynaOpt, hard-coded in the length of its blocks


@dataclass(frozen=True)
class ScheduleSettings(ExpertSettings):
    """Settings of `Schedule`, beside those of its policy."""

    kind: str = "uniform"  # round_robin: one objective an update in turn; blocks: many updates each; random: drawn
    block_updates: int = 4  # blocks: updates of one objective; 0: as published, int(1000 / K) of 1,000
    draws: str = "normal"  # random: softmax of K standard normals (RLW's default), or dirichlet: uniform on the simplex

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("kind", self.kind, KINDS)
        check_choice("draws", self.draws, DRAWS)
        if self.block_updates < 0:
            raise ConfigError(f"block_updates must not be negative, got {self.block_updates}. Try 4.")
        check_read(self, "kind", {"block_updates": ("blocks",), "draws": ("random",)})


class Scheduled:
    """Weights that depend on the number of the update, and on its draws, alone."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, preference: FloatArray, settings: Mapping[str, Any], ranges: FloatArray) -> None:
        self.objectives, self.kind, self.draws = len(preference), settings["kind"], settings["draws"]
        block = settings["block_updates"] or PUBLISHED_UPDATES // self.objectives
        self.each = block if self.kind == "blocks" else 1

    def measured(self, update: int) -> int:
        """Measure nothing."""
        return 0

    def weigh(self, seen: Seen) -> FloatArray:
        """Return the weights of this update, `[K]`, with sum 1."""
        if self.kind == "uniform":
            return centre(self.objectives)
        if self.kind == "random":
            if self.draws == "dirichlet":
                return np.asarray(seen.generator.dirichlet(np.ones(self.objectives)))
            powers = np.exp(seen.generator.standard_normal(self.objectives))
            return np.asarray(powers / powers.sum())
        weights = np.zeros(self.objectives)
        weights[seen.update // self.each % self.objectives] = 1
        return weights

    def state(self) -> dict[str, object]:
        """Return nothing: there is no state."""
        return {}

    def load(self, state: Mapping[str, object]) -> None:
        """Take nothing over."""


@method("schedule", "single-policy")
class Schedule:
    """Train one policy under scheduled weights, equal on average; it answers every preference, as it knows none.

    Source:
        Min et al. 2024 (DynaOpt) for uniform weights and blocks ("round"); Lin et al. 2022, Reasonable effectiveness of
        random weighting, for random ones (RLW).

    Departures:
        `blocks` are short by default: published ones, `block_updates: 0`, last a third of 1,000 updates whatever a run
        has, so that a short run never leaves its first objective. Weights sum to 1 (DynaOpt: uniform ones to K).
    """

    settings: ScheduleSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return one expert with all of the budget, for equal weights."""
        (length,) = split_budget(budget, 1, self.settings.group_size)
        weighting = where_found(Scheduled)
        return (expert_stage(self.settings, centre(len(task.objectives)), length, seed, weighting=weighting),)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the only policy."""
        return best_trained(task, results)
