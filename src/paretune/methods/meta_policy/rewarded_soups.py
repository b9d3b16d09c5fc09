"""Rewarded soups: one expert per objective, averaged with the preference as weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from paretune.core.answers import Combined
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.methods.experts import adapters_of, corner_experts
from paretune.methods.feedback import FeedbackSettings


@dataclass(frozen=True)
class RewardedSoupsSettings(FeedbackSettings):
    """Settings of `RewardedSoups`: those of its experts."""


@method("rewarded_soups", "meta-policy")
class RewardedSoups:
    """Train one expert per objective and average their deltas: `Delta W = sum_k w_k s B_k A_k`.

    Source:
        Ramé et al. 2023, Rewarded soups.

    Departures:
        The deltas are averaged, exactly; the published code averages the factors A and B apart, which adds cross
        terms `B_i A_j` and is no average of the experts.
    """

    settings: RewardedSoupsSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return one expert per objective; `preferences` play no part in training."""
        return corner_experts(self.settings, len(task.objectives), budget, seed)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the average of the experts, the preference as weights."""
        return Assembly(adapters_of(results.values()), Combined(np.eye(len(task.objectives))))
