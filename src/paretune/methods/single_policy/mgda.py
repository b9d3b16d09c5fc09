"""Multiple-gradient descent: each policy moves where no objective of its preference gets worse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.gradients.mgda import mgda
from paretune.methods.gradient_weights import GradientWeights, RescaledSettings, rescaling
from paretune.methods.per_preference import best_trained, planned_experts


@dataclass(frozen=True)
class MGDASettings(RescaledSettings):
    """Settings of `MGDA`: those of a method that rescales gradients."""


class MGDAWeights(GradientWeights):
    """Weights of the shortest vector in the hull of the objectives' gradients, in the metric of the step."""

    def of_gram(self, gram: FloatArray, generator: np.random.Generator) -> FloatArray:
        """Return the weights, scaled to sum 1: rescaled gradients give them any scale, and it would be the step's."""
        weights = mgda(gram, **rescaling(self.preference, self.settings))
        return np.asarray(weights / (weights.sum() or 1.0))


@method("mgda", "single-policy")
class MGDA:
    """Train one policy per wanted preference along common descent directions of its objectives.

    Source:
        Désidéri 2012; Sener and Koltun 2018 (MGDA); Li et al. 2025 (GAPO) for gradients divided by their norms and for
        preferences.

    Departures:
        The hull's shortest vector is exact, and taken in the metric of the step that is applied, on smoothed gradients
        (`rl.objective_steps`): so the step itself turns against no objective. Published code solves on raw gradients,
        `metric: plain`. With `preference: shared`, ours, gains go with preferences; `scaled` is the published way,
        under which the objective preferred least gains most.
    """

    settings: MGDASettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return one expert per trained preference."""
        return planned_experts(self.settings, preferences, budget, seed, MGDAWeights)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer a trained preference with its own policy, any other with the one estimated best for it."""
        return best_trained(task, results)
