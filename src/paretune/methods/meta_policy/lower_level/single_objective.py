"""Experts of one objective each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paretune.core.preferences import FloatArray
from paretune.core.stages import Stage
from paretune.core.task import Task
from paretune.methods.experts import ExpertSettings, corner_experts


@dataclass(frozen=True)
class SingleObjective:
    """One expert for each objective, trained for it alone.

    Source:
        Ramé et al. 2023, Rewarded soups.
    """

    def stages(self, settings: ExpertSettings, task: Task, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return one expert for each corner, from a common start."""
        return corner_experts(settings, len(task.objectives), budget, seed)

    def prior(self, objectives: int) -> FloatArray:
        """Return the identity: the preference itself weighs the experts, `[K, K]`."""
        return np.eye(objectives)
