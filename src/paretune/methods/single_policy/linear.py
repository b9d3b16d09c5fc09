"""Linear scalarisation: one policy per wanted preference, trained on the weighted sum of the objectives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from paretune.core.answers import Nearest
from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray, add_points, centre, corners
from paretune.core.protocols import Assembly, Family
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.methods.experts import (
    PLANNING,
    ExpertSettings,
    adapters_of,
    expert_stage,
    split_budget,
    trained_weights,
)


@dataclass(frozen=True)
class LinearSettings(ExpertSettings):
    """Settings of `Linear`, beside those of its experts."""

    # fewer would compare half-trained policies; measured on the embedded task
    completions_each: int = field(default=1500, metadata=PLANNING)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.completions_each < self.group_size:
            raise ConfigError(
                f"completions_each must be at least one group of {self.group_size}, got {self.completions_each}."
            )


class Linear:
    """Train one policy per wanted preference; the policy of the nearest one answers the rest.

    With a budget for fewer policies than wanted preferences, corners and centre come first, then the wanted ones in
    the order given.

    Source:
        Weighted-sum scalarisation; single-policy family of Kong et al. 2025.
    """

    name: ClassVar[str] = "linear"
    family: ClassVar[Family] = "single-policy"
    version: ClassVar[int] = 1
    Settings: ClassVar[type] = LinearSettings

    def __init__(self, settings: LinearSettings) -> None:
        self.settings = settings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return one expert per trained preference."""
        trained = self.trained_preferences(task, preferences, budget)
        lengths = split_budget(budget, len(trained), self.settings.group_size)
        return tuple(
            expert_stage(self.settings, row, length, seed) for row, length in zip(trained, lengths, strict=True)
        )

    def trained_preferences(self, task: Task, preferences: FloatArray, budget: int) -> FloatArray:
        """Return the preferences that get a policy of their own, `[N, K]`."""
        affordable = max(1, budget // self.settings.completions_each)
        if len(preferences) <= affordable:
            return preferences
        objectives = len(task.objectives)
        first = add_points(corners(objectives), centre(objectives))
        return add_points(first, preferences)[:affordable]

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the policy trained for the nearest preference."""
        experts = tuple(results.values())
        return Assembly(adapters_of(experts), Nearest(trained_weights(experts)))
