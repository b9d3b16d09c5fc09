"""One policy for all preferences: experts trained together, weighed by the preference itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from paretune.core.answers import Combined
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.methods.banks import DrawnBankSettings, bank_stage
from paretune.methods.experts import adapters_of, split_budget


@dataclass(frozen=True)
class PreferenceConditionedSettings(DrawnBankSettings):
    """Settings of `PreferenceConditioned`: those of its bank."""


@method("preference_conditioned", "meta-policy")
class PreferenceConditioned:
    """Train one expert per objective, all of them at once, on prompts that each have a preference of their own.

    Rewarded soups train each expert for its corner alone and hope that averages of experts are good policies. Here the
    averages themselves are trained: every prompt draws a preference w uniformly from the simplex, its completions come
    from the experts mixed with `g = w`, and the objectives are weighed with w.

    Source:
        Wang et al. 2024 (conditional language policy), with low-rank experts in the place of whole models.

    Departures:
        On-policy REINFORCE with the learner all methods share; the published method uses its own objective.
    """

    settings: PreferenceConditionedSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the bank's one stage; `preferences` play no part in training."""
        (length,) = split_budget(budget, 1, self.settings.group_size)
        return (bank_stage(self.settings, length, seed),)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the experts, the preference as weights."""
        return Assembly(adapters_of(results.values()), Combined(np.eye(len(task.objectives))))
