"""Experts that improve one objective and harm no other by more than is allowed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray, corners
from paretune.core.settings import check_unread
from paretune.core.stages import Stage
from paretune.core.task import Task
from paretune.core.user_calls import where_found
from paretune.gradients.cone import cone
from paretune.methods.experts import ExpertSettings, corner_experts
from paretune.methods.gradient_weights import GradientWeights
from paretune.methods.meta_policy.lower_level.trained_for import experts_for
from paretune.rl.gradient_step import GradientStep


class ConeWeights(GradientWeights):
    """Weights of an expert's own gradient, moved to where no other objective is harmed by more than is allowed."""

    def of_gram(self, gram: FloatArray, generator: np.random.Generator) -> FloatArray:
        """Return 1 for the expert's own objective and what others need not to be harmed, which may be more than 1.

        They are not rescaled: the direction is never longer than the gradient of the expert's own objective.
        """
        return cone(gram, int(self.preference.argmax()), float(self.settings["eps"]))


@dataclass(frozen=True)
class ConeExperts:
    """One expert for each objective, "improve i, harm no other": each step is i's own, less what it does to others.

    The step is along the d nearest to `g_i` with `<d, g_j> >= -eps |g_i| |g_j|` for all j, in the optimiser's metric.

    Source:
        Kong et al. 2025, experts as the lower level; the projection is that of gradient episodic memory (Lopez-Paz and
        Ranzato 2017), see `gradients.cone`.

    Departures:
        Inner products are of smoothed gradients in the metric of the step that is applied, see `rl.objective_steps`.
    """

    eps: float | Literal["inf"] = 0.0  # harm allowed, a cosine; inf: all, the experts of rewarded soups themselves
    metric: str = "optimiser"  # of the inner products, see `GradientStep`
    optimiser: str = "adamw"  # or sgd

    def __post_init__(self) -> None:
        GradientStep(self.metric, self.optimiser)
        if self.eps == math.inf:
            object.__setattr__(self, "eps", "inf")  # the word, which keys and files can hold
        if self.eps != "inf" and not 0 <= self.eps <= 1:
            raise ConfigError(
                f"eps must lie between 0 and 1, or be inf, got {self.eps}. Try 0.2, or 0 for no harm at all."
            )
        if self.eps == "inf":
            check_unread(self, ("metric", "optimiser"), "where eps is inf, for no gradients are compared")

    def stages(self, settings: ExpertSettings, task: Task, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return one expert for each objective; where all harm is allowed, those of rewarded soups."""
        if self.eps == "inf":
            return corner_experts(settings, len(task.objectives), budget, seed)
        experts = experts_for(settings, corners(len(task.objectives)), budget, seed, where_found(ConeWeights))
        own = {"eps": self.eps, "metric": self.metric, "optimiser": self.optimiser}
        return tuple(replace(each, settings={**each.settings, **own}) for each in experts)

    def prior(self, objectives: int) -> FloatArray:
        """Return the identity: the preference itself weighs the experts, `[K, K]`."""
        return np.eye(objectives)
