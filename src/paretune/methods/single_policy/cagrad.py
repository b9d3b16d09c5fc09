"""CAGrad: near the preference's gradient, each policy moves where its least improved objective gains most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.gradients.cagrad import cagrad
from paretune.methods.gradient_weights import GradientWeights, RescaledSettings, rescaling
from paretune.methods.per_preference import best_trained, planned_experts


@dataclass(frozen=True)
class CAGradSettings(RescaledSettings):
    """Settings of `CAGrad`, beside those of a method that rescales gradients."""

    c: float = 0.4  # how far from the preference's gradient, as a share of its length; published for NYU-v2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.c < np.inf:
            raise ConfigError(f"c must be at least 0 and finite, got {self.c}. Try 0.4.")


class CAGradWeights(GradientWeights):
    """Weights of the direction near the preference's gradient that spares the least improved objective most."""

    def of_gram(self, gram: FloatArray, generator: np.random.Generator) -> FloatArray:
        """Return the weights: the preference, and what sparing adds to it, over 1 + c."""
        given = rescaling(self.preference, self.settings)
        if "preference" not in given:  # it is left out of what counts as an improvement, not of the mean
            given = {**given, "preference": self.preference, "preference_power": 0}
        return cagrad(gram, self.settings["c"], **given)


@method("cagrad", "single-policy")
class CAGrad:
    """Train one policy per wanted preference near its weighted sum, in favour of the objective that gains least.

    Source:
        Liu et al. 2021, Conflict-averse gradient descent for multi-task learning.

    Departures:
        The mean gradient is that under the preference, so that `c: 0` is `linear`. Improvements are compared by unit of
        gradient and of preference, `normalise: 1` and `preference: shared`, ours; published are `normalise: 0` and
        `scaled`. The direction is divided by `1 + c`, in published code by `1 + c^2`: no step is longer than that of
        `linear`. It is exact for any K, and chosen in the metric of the step that is applied, on smoothed gradients
        (`rl.objective_steps`); published code uses raw ones, `metric: plain`.
    """

    settings: CAGradSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return one expert per trained preference."""
        return planned_experts(self.settings, preferences, budget, seed, CAGradWeights)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer a trained preference with its own policy, any other with the one estimated best for it."""
        return best_trained(task, results)
