"""One policy for everybody: trained for equal weights with the whole budget, whatever is preferred."""

from __future__ import annotations

from collections.abc import Mapping

from paretune.core.preferences import FloatArray, centre
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.methods.experts import ExpertSettings, expert_stage, split_budget
from paretune.methods.per_preference import nearest_trained


@method("one_policy", "single-policy")
class OnePolicy:
    """Train one policy for equal weights with the whole budget; it answers every preference.

    A row of every study: what a method gains by asking for preferences at all, it must gain against this. Its training
    is that of `linear` for equal weights, and shared with it where settings and lengths are equal.

    Source:
        Weighted-sum scalarisation with equal weights, the usual practice where nobody is asked.
    """

    settings: ExpertSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return one expert for equal weights.

        Raises:
            BudgetError: If the budget is less than one group.
        """
        (length,) = split_budget(budget, 1, self.settings.group_size)
        return (expert_stage(self.settings, centre(len(task.objectives)), length, seed),)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer every preference with the one policy."""
        return nearest_trained(results)
