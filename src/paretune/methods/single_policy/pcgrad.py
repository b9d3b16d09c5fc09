"""PCGrad: each objective's gradient loses its part against those it conflicts with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.gradients.pcgrad import pcgrad
from paretune.methods.gradient_weights import GradientSettings, GradientWeights
from paretune.methods.per_preference import best_trained, planned_experts


@dataclass(frozen=True)
class PCGradSettings(GradientSettings):
    """Settings of `PCGrad`: those of a method that chooses weights from gradients."""


class PCGradWeights(GradientWeights):
    """Weights of the mean of projected gradients under the preference, in the metric of the step."""

    def of_gram(self, gram: FloatArray, generator: np.random.Generator) -> FloatArray:
        """Return the weights: the preference, and what conflicts add to it."""
        return pcgrad(gram, generator, self.preference)


@method("pcgrad", "single-policy")
class PCGrad:
    """Train one policy per wanted preference on its weighted sum, less what objectives take from each other.

    Source:
        Yu et al. 2020, Gradient surgery for multi-task learning.

    Departures:
        The mean of projected gradients under the preference in place of their sum, so that without conflicts it is
        `linear`. Inner products are those of smoothed gradients in the metric of the step that is applied
        (`rl.objective_steps`); published code projects raw gradients, `metric: plain`.
    """

    settings: PCGradSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return one expert per trained preference."""
        return planned_experts(self.settings, preferences, budget, seed, PCGradWeights)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer a trained preference with its own policy, any other with the one estimated best for it."""
        return best_trained(task, results)
