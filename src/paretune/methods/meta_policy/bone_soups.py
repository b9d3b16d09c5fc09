"""Bone soups: experts of mixed rewards, averaged with weights that undo the mixing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from paretune.core.answers import Combined
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.methods.experts import PLANNING, ExpertSettings, adapters_of
from paretune.methods.meta_policy.lower_level.mixed_reward import MixedReward


@dataclass(frozen=True)
class BoneSoupsSettings(ExpertSettings):
    """Settings of `BoneSoups`, beside those of its experts."""

    beta: float = field(default=MixedReward.beta, metadata=PLANNING)  # weight of an expert's own objective; published
    extrapolation: float = field(default=MixedReward.extrapolation, metadata=PLANNING)  # beyond the mixture, 0: none

    def __post_init__(self) -> None:
        super().__post_init__()
        MixedReward(self.beta, self.extrapolation)

    @property
    def expert_kind(self) -> MixedReward:
        """The experts that are averaged."""
        return MixedReward(self.beta, self.extrapolation)


@method("bone_soups", "meta-policy")
class BoneSoups:
    """Train each expert for a mixture of all objectives, and average deltas with weights `B^-1 w` for preference w.

    B holds what each expert was trained for, so the experts' objective weights, averaged, are the preference. Near the
    corners some weights are negative and others above 1.

    Source:
        Xie et al. 2025, Bone soups: a seek-and-soup model merging approach for controllable multi-objective generation.

    Departures:
        See `MixedReward`, whose experts these are.
    """

    settings: BoneSoupsSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return one expert per objective; `preferences` play no part in training."""
        return self.settings.expert_kind.stages(self.settings, task, budget, seed)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the average of the experts under weights that undo the mixing of rewards."""
        prior = self.settings.expert_kind.prior(len(task.objectives))
        return Assembly(adapters_of(results.values()), Combined(prior))
