"""Contracts of the plug-ins: methods and metrics, and the solution set a method returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from paretune.core.answers import AnswerRule
from paretune.core.preferences import FloatArray
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task

Family = Literal["single-policy", "multi-policy", "meta-policy", "ceiling"]
CEILING: Family = "ceiling"  # the family of what is no method, but what one could reach
FAMILIES: tuple[Family, ...] = ("single-policy", "multi-policy", "meta-policy")


@dataclass(frozen=True)
class Assembly:
    """What a method hands over: experts and the rule that answers a preference with them.

    `models.solutions.SolutionSet` loads it; this plain form lets methods be planned without torch.

    Attributes:
        experts: Finished stages with an adapter, in the order of the rule's experts.
        rule: From a preference to expert weights.
        notes: Plain data worth keeping, such as the scores a selection was based on.
    """

    experts: tuple[StageResult, ...]
    rule: AnswerRule
    notes: Mapping[str, object] = field(default_factory=dict)


class Method(Protocol):
    """A way to get policies for preferences. Pure and static: nothing is trained by calling these.

    Attributes:
        name: Its name in studies and tables.
        family: How it answers a preference.
        version: Raised when its results change; part of the training key.
        Settings: Frozen dataclass of its settings; a method is made with an instance of it, `Method(Settings())`.
    """

    name: ClassVar[str]
    family: ClassVar[Family]
    version: ClassVar[int]
    Settings: ClassVar[type]
    settings: Any

    def __init__(self, settings: Any) -> None: ...

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the stages to finish for a task, wanted preferences `[M, K]`, budget in completions and seed."""
        ...

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the results of all stages, needs included, by `stage.key(task)` and in order."""
        ...


@dataclass(frozen=True)
class MetricValue:
    """One number of the judge, or the reason why there is none.

    Attributes:
        value: Mean over seeds, or None when it could not be measured.
        low: Lower end of the 95 % interval; None with fewer than two seeds.
        high: Upper end.
        per_seed: Value of each seed behind it.
        reason: Why `value` (or the interval) is missing; empty when all is there.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    per_seed: Mapping[int, float] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class MetricRow:
    """A metric's value for one method on one task at one budget, with a label where a metric has several parts."""

    task: str
    method: str
    budget_completions: int
    metric: str
    value: MetricValue
    label: str = ""


class Metric(Protocol):
    """One of the paper's eight measures. Reads records, never runs a model."""

    name: ClassVar[str]
    title: ClassVar[str]
    unit: ClassVar[str]
    higher_is_better: ClassVar[bool]

    def measure(self, study: Any) -> Sequence[MetricRow]:
        """Return rows for every task, method and budget of `records.study.StudyRecords`."""
        ...
