"""Linear scalarisation: one policy per wanted preference, trained on the weighted sum of the objectives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.methods.experts import PLANNING
from paretune.methods.feedback import FeedbackSettings
from paretune.methods.per_preference import PerPreferenceSettings, best_trained, nearest_trained, planned_experts


@dataclass(frozen=True)
class LinearSettings(PerPreferenceSettings, FeedbackSettings):
    """Settings of `Linear`, beside those of one policy per preference: code of your own in the learner's slots."""

    weighting: str = field(default="", metadata=PLANNING)  # module:Class that changes the weights, docs/your_method.md
    shaping: str = field(default="", metadata=PLANNING)  # module:function on each completion's rewards before that


@method("linear", "single-policy")
class Linear:
    """Train one policy per wanted preference; the one that is estimated best answers for any other.

    With a budget for fewer policies than wanted preferences, corners and centre come first, then the wanted ones in
    the order given.

    Source:
        Weighted-sum scalarisation; single-policy family of Kong et al. 2025.
    """

    settings: LinearSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return one expert per trained preference."""
        return planned_experts(self.settings, preferences, budget, seed, self.settings.weighting, self.settings.shaping)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer a trained preference with its own policy, any other with the one estimated best for it.

        Where one number a completion is all that is seen, nothing tells what a policy is worth to the users of another
        preference: then the nearest answers.
        """
        if self.settings.feedback == "utility":
            return nearest_trained(results)
        return best_trained(task, results)
