"""UPGrad: the mean of the objectives' gradients, each moved to where no objective gets worse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.gradients.upgrad import upgrad
from paretune.methods.gradient_weights import GradientSettings, GradientWeights
from paretune.methods.per_preference import best_trained, planned_experts


@dataclass(frozen=True)
class UPGradSettings(GradientSettings):
    """Settings of `UPGrad`: those of a method that chooses weights from gradients."""


class UPGradWeights(GradientWeights):
    """Weights of the mean, under the preference, of gradients projected on the cone of common descent."""

    def of_gram(self, gram: FloatArray, generator: np.random.Generator) -> FloatArray:
        """Return the weights: the preference, and what conflicts add to it."""
        return upgrad(gram, self.preference)


@method("upgrad", "single-policy")
class UPGrad:
    """Train one policy per wanted preference on its weighted sum, moved to where none of its objectives gets worse.

    Source:
        Quinton and Rey 2024, Jacobian descent for multi-objective optimization.

    Departures:
        Each projection is exact, and taken in the metric of the step that is applied, on smoothed gradients
        (`rl.objective_steps`); the published way, on raw gradients, is `metric: plain`.
    """

    settings: UPGradSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return one expert per trained preference."""
        return planned_experts(self.settings, preferences, budget, seed, UPGradWeights)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer a trained preference with its own policy, any other with the one estimated best for it."""
        return best_trained(task, results)
