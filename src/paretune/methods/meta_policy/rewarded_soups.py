"""Rewarded soups: one expert per objective, averaged with the preference as weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from paretune.core.answers import Combined
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.methods.experts import adapters_of
from paretune.methods.feedback import FeedbackSettings
from paretune.methods.meta_policy.lower_level.averaged import AveragedSettings
from paretune.methods.meta_policy.upper_level.stretch import StretchSettings, stretched


@dataclass(frozen=True)
class RewardedSoupsSettings(AveragedSettings, StretchSettings, FeedbackSettings):
    """Settings of `RewardedSoups`: which experts, theirs, and how far they are weighed beyond the preference."""


@method("rewarded_soups", "meta-policy")
class RewardedSoups:
    """Train one expert per objective and average their deltas: `Delta W = sum_k w_k s B_k A_k`.

    Source:
        Ramé et al. 2023, Rewarded soups.

    Departures:
        The deltas are averaged, exactly; the published code averages the factors A and B apart, which adds cross
        terms `B_i A_j` and is no average of the experts. So experts need not start from one A, `start: own`.
        `stretch` weighs experts beyond the preference, see `upper_level.stretch`.
    """

    settings: RewardedSoupsSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the experts, by default one per objective; `preferences` play no part in training."""
        return self.settings.expert_stages(task, budget, seed)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the average of the experts, weighed by the prior of their kind: by default the preference."""
        prior = self.settings.expert_kind.prior(len(task.objectives))
        return Assembly(adapters_of(results.values()), Combined(stretched(prior, self.settings)))
