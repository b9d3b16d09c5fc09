"""Experts of mixed rewards: each is trained for all objectives, and for one of them most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.stages import Stage
from paretune.core.task import Task
from paretune.methods.experts import ExpertSettings
from paretune.methods.meta_policy.lower_level.trained_for import experts_for, least_norm_prior


@dataclass(frozen=True)
class MixedReward:
    """Experts on mixed rewards `h = B r`, weighed with `B^-1 w`, which leaves the simplex near its corners.

    B has `beta` on its diagonal and the rest of each row shared equally. With `beta: 1` these are the experts of
    rewarded soups.

    Source:
        Xie et al. 2025, Bone Soups.

    Departures:
        `beta` is a setting; published, the best of .6, .7 and .8 by the hypervolume of runs of a fifth of the length,
        as `bone_soups` can do.
        `extrapolation` is one number for all corners and 0 unless it is set; published, one for each corner, the best
        of five on a small slice of the data. Deltas are averaged exactly, and so extrapolated.
    """

    beta: float = 0.7  # weight of an expert's own objective, the source's letter: not the KL coefficient of the task
    extrapolation: float = 0.0  # alpha of the source: from the base model on by so much more than the mixture

    def __post_init__(self) -> None:
        if not 0 < self.beta <= 1:
            raise ConfigError(
                f"beta of mixed-reward experts must be above 1/K and at most 1, got {self.beta}. Try 0.7, as published."
            )
        if not (self.extrapolation >= 0 and np.isfinite(self.extrapolation)):
            raise ConfigError(
                f"extrapolation must be finite and not negative, got {self.extrapolation}. Write 0 for none."
            )

    def mixing(self, objectives: int) -> FloatArray:
        """Return B `[K, K]`: a row for each expert.

        Raises:
            ConfigError: If no objective would have most of its expert's weight.
        """
        if objectives == 1:
            return np.ones((1, 1))
        if not self.beta > 1 / objectives:
            raise ConfigError(
                f"beta of mixed-reward experts must be above 1/K (1/{objectives}), got {self.beta}. Try 0.7, as "
                "published."
            )
        rest = (1 - self.beta) / (objectives - 1)
        return np.where(np.eye(objectives, dtype=bool), self.beta, rest)

    def stages(self, settings: ExpertSettings, task: Task, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return one expert for each objective; with beta below 1, each needs the rewards of all of them."""
        return experts_for(settings, self.mixing(len(task.objectives)), budget, seed)

    def prior(self, objectives: int) -> FloatArray:
        """Return `(1 + extrapolation) B'^-1` `[K, K]`."""
        return (1 + self.extrapolation) * least_norm_prior(self.mixing(objectives))
