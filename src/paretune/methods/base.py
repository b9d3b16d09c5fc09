"""The base model as it is: no method, but what every method must be better than."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from paretune.core.answers import Untrained
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task


@dataclass(frozen=True)
class BaseSettings:
    """Settings of `Base`: none."""


@method("base", "reference")
class Base:
    """Answer every preference with the base model: nothing is trained, nothing is charged.

    A row of every study, shown beside the methods and never ranked among them.

    Source:
        The reference policy of Kong et al. 2025, from which all fine-tuning starts.
    """

    settings: BaseSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return nothing to train."""
        return ()

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer without any expert."""
        return Assembly((), Untrained(len(task.objectives)))
