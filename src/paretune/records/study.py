"""A finished or half-finished study in memory: what metrics and the report read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from paretune.core.preferences import SAME_PREFERENCE
from paretune.core.protocols import Table
from paretune.core.task import JudgedOn
from paretune.records.evaluation import EvaluationRecord, utility
from paretune.records.outcomes import OutcomeRecord, TruthRecord

CellState = Literal["done", "failed", "pending"]
FailureReason = Literal[
    "out_of_memory", "crash", "not_finite", "reward_error", "task_error", "model_error", "disk_full", "method_error"
]  # fmt: skip
TuningMeasure = Literal["captured_share", "J", "utility"]
FAILURE_REASONS: tuple[FailureReason, ...] = get_args(FailureReason)


@dataclass(frozen=True)
class ObjectiveInfo:
    """What the judge needs to know of an objective."""

    name: str
    range: tuple[float, float]
    pass_threshold: float | None
    version: int
    audit: bool


@dataclass(frozen=True)
class TaskInfo:
    """What the judge needs to know of a task.

    Attributes:
        name: Its name.
        objectives: The K objectives, then the audit objectives.
        reference_point: Frozen hypervolume corner, `[K]`.
        beta: KL coefficient.
        model: Base model folder or hub id, as given.
        test_prompts: Number of test prompts.
        samples: Completions per test prompt in evaluation.
        preferences: All preferences evaluated, `[M, K]`.
        unseen: Which of them no method was given before evaluation, `[M]`.
        listed: Whether all completions can be listed, so that policies are scored exactly and the best is known.
        family_settings: Of the family of tasks it is an instance of, such as `rho`; none where all seeds are one task.
        judged_on: What policies are ranked by.
        contextual: Whether what a user wants depends on the prompt.
    """

    name: str
    objectives: tuple[ObjectiveInfo, ...]
    reference_point: NDArray[np.float64]
    beta: float
    model: str
    test_prompts: int
    samples: int
    preferences: NDArray[np.float64]
    unseen: NDArray[np.bool_]
    listed: bool = False
    family_settings: Mapping[str, float] = field(default_factory=dict)
    judged_on: JudgedOn = "utility"
    contextual: bool = False

    @property
    def trained(self) -> tuple[ObjectiveInfo, ...]:
        """The K objectives preferences weigh."""
        return tuple(objective for objective in self.objectives if not objective.audit)


@dataclass(frozen=True)
class StageRecord:
    """What a finished stage cost.

    Attributes:
        key: Its digest.
        kind: `expert`, `measurement`, ...
        needs: Keys of the stages it waited for.
        counts: prompts, completions, tokens, reward_calls, flops charged.
        repeated: The same, spent twice because of a kill; not charged.
        seconds: Wall-clock seconds, its share of a population.
        phases: Seconds per phase: sampling, scoring, update, ...
        peak_memory_bytes: Of its worker process.
        adapters: How many experts it left.
        scored: Rewards that were made, by objective.
        missing: Rewards that were not.
        conflicts: Share of its optimiser steps that turned against each objective, None for one that its preference
            leaves out; empty where it is not known, as gradients of objectives were not made.
        cpu_phases: Seconds that cores worked for it, per phase; None where that was not measured.
        attempts: What each attempt at it ran on, of those that its seconds are the sum of; see `training.attempts`.
            Empty mappings where that was not recorded.
        settings: What its run function is given.
    """

    key: str
    kind: str
    needs: tuple[str, ...]
    counts: Mapping[str, float]
    repeated: Mapping[str, float]
    seconds: float
    phases: Mapping[str, float]
    peak_memory_bytes: int
    adapters: int
    scored: tuple[int, ...] = ()
    missing: tuple[int, ...] = ()
    conflicts: tuple[float | None, ...] = ()
    cpu_phases: Mapping[str, float | None] = field(default_factory=dict)
    attempts: tuple[Mapping[str, Any], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cpu_seconds(self) -> float | None:
        """Seconds that cores worked for it; None where they were not measured in all of its phases."""
        known = [self.cpu_phases.get(phase) for phase in self.phases]
        return None if None in known else float(sum(each or 0.0 for each in known))


@dataclass(frozen=True)
class CellRecord:
    """One method on one task at one budget with one seed; `feedback` is its class, see `core.feedback`.

    What its training depended on, part by part, is `made_of`, see `benchmark.changes.made_of`.
    """

    cell: str
    task: str
    method: str
    family: str
    budget_completions: int
    seed: int
    state: CellState
    reason: FailureReason | None = None
    message: str = ""
    stages: tuple[StageRecord, ...] = ()
    evaluations: tuple[EvaluationRecord, ...] = ()
    outcomes: OutcomeRecord | None = None  # at every scale of the experts' weights, where it was asked for
    measured: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # what is measured on request, by its name
    tables: Mapping[str, Path] = field(default_factory=dict)  # folders of a user's measurements, by `module:Class`
    feedback: str = "told"
    made_of: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)  # versions and hardware it was put together on

    def evaluation(self, preference: NDArray[np.float64]) -> EvaluationRecord | None:
        """Return how it answered a preference `[K]` on the test prompts, or None where it did not."""
        found = self._by_preference.get(preference.tobytes())
        if found is None:  # the same point, computed along another way, may differ in its last bits
            close = (
                each
                for each in self._by_preference.values()
                if np.abs(each.preference - preference).max() <= SAME_PREFERENCE
            )
            found = next(close, None)
        return found

    def utilities(self, preferences: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the utility it achieves for preferences `[M, K]`: `[M]`, NaN where it cannot be told."""
        answers = [self.evaluation(preference) for preference in preferences]
        return np.array(
            [
                np.nan if record is None else record.utility(preference)
                for record, preference in zip(answers, preferences, strict=True)
            ]
        )

    @cached_property
    def _by_preference(self) -> dict[bytes, EvaluationRecord]:
        return {each.preference.tobytes(): each for each in self.evaluations if each.split == "test"}


@dataclass(frozen=True)
class TimedBatch:
    """Rounds of decoding one number of rows at once, in which every decoder answers the same prompts.

    Decoders are `base`, the base model without experts; `policy`, that of one preference; and, where there are several
    rows and preferences, `mixed`, another preference in each row.

    Attributes:
        rows: Rows decoded at once.
        new_tokens: Of each row.
        latency_seconds: Decoder -> seconds from the raw prompts to all texts, one value a round.
        first_token_seconds: `base` and `policy` -> the same of answers of one token.
        peak_bytes: `base` and `policy` -> the most bytes of tensors that decoding held at once, parameters included.
        ended: Why there were no further rounds: intervals were `narrow`, or the most `rounds` or `seconds` were spent.
    """

    rows: int
    new_tokens: int
    latency_seconds: Mapping[str, tuple[float, ...]]
    first_token_seconds: Mapping[str, tuple[float, ...]]
    peak_bytes: Mapping[str, int]
    ended: str

    def tokens_per_second(self, decoder: str) -> tuple[float, ...]:
        """Return the speed of a decoder in every round."""
        return tuple(self.rows * self.new_tokens / each for each in self.latency_seconds[decoder])


@dataclass(frozen=True)
class TimingRecord:
    """What decoding with one method's policy cost beside the base model, round by round, while nothing else ran.

    Attributes:
        task: Its task.
        method: Its method; the policy timed is that of the centre preference and the first seed.
        batches: By increasing number of rows.
        clock: `cpu` where seconds are those in which the process computed, `wall` where they are those that passed.
        threads: Threads used.
        device: `cpu` or the GPU's name.
        busy: Share of the time that passed in which the process had to wait for other work; None by a clock on the
            wall, which does not tell.
    """

    task: str
    method: str
    batches: tuple[TimedBatch, ...]
    clock: Literal["cpu", "wall"]
    threads: int
    device: str
    busy: float | None = None

    @property
    def rows(self) -> int:
        """The most rows that were decoded at once."""
        return self.batches[-1].rows

    @property
    def tokens_per_second(self) -> tuple[float, ...]:
        """The policy's speed in every round of the most rows."""
        return self.batches[-1].tokens_per_second("policy")

    @property
    def base_tokens_per_second(self) -> tuple[float, ...]:
        """The base model's speed in the same rounds."""
        return self.batches[-1].tokens_per_second("base")


@dataclass(frozen=True)
class TuningPoint:
    """Settings that a sweep tried, and how they did.

    Attributes:
        settings: Name of a setting -> value.
        score: Over all tuning instances; None where an instance has none.
        per_seed: The same of each instance.
        reason: Why there is no score; empty where there is one.
    """

    settings: Mapping[str, object]
    score: float | None
    per_seed: Mapping[int, float | None]
    reason: str = ""

    @property
    def text(self) -> str:
        """Its settings as people write them, `learning_rate=0.001, epochs=2`."""
        return ", ".join(f"{name}={value}" for name, value in self.settings.items())


@dataclass(frozen=True)
class TuningRecord:
    """A finished sweep over settings of one method on one task.

    Attributes:
        task: Its task.
        method: Its method.
        measure: What a score is: on a task judged on J the captured share where all instances tell it, else the mean
            J; on others the mean utility. Where policies can only be sampled and have no KL, the utility.
        budget_completions: What each of its cells might use.
        preferences: Preferences it was scored on, `[M, K]`.
        points: What was tried, in the order of the grid.
        chosen: Position of the settings chosen; None where no point has a score.
        completions: Completions trained with, charged to nobody.
        seconds: Seconds of training.
    """

    task: str
    method: str
    measure: TuningMeasure
    budget_completions: int
    preferences: NDArray[np.float64]
    points: tuple[TuningPoint, ...]
    chosen: int | None
    completions: float
    seconds: float


@dataclass(frozen=True)
class StudyRecords:
    """All that is known of a study.

    Attributes:
        name: Its name.
        folder: Where it lies; None when made in memory.
        resolved: The resolved study file, plain data.
        tasks: Task name -> info.
        cells: Every planned cell, finished or not.
        references: (task, seed) -> evaluation of the base model on the test prompts.
        truths: (task, seed) -> what can be reached, where completions can be listed.
        timings: Inference measurements.
        environment: Versions and hardware the study ran on.
        merged_from: Folders of its parts, where it was put together from several.
        tables: All that measurements were asked for.
        missing: Folder of each table that is not there -> why, in a few words.
        tuning: Finished sweeps over settings, one for each task and method that was tuned.
        relations: (task, seed) -> how objectives relate under the base model, as `paretune probe` writes it.
    """

    name: str
    folder: Path | None
    resolved: Mapping[str, object]
    tasks: Mapping[str, TaskInfo]
    cells: tuple[CellRecord, ...]
    references: Mapping[tuple[str, int], EvaluationRecord] = field(default_factory=dict)
    truths: Mapping[tuple[str, int], TruthRecord] = field(default_factory=dict)
    timings: tuple[TimingRecord, ...] = ()
    environment: Mapping[str, object] = field(default_factory=dict)
    merged_from: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    tuning: tuple[TuningRecord, ...] = ()
    relations: Mapping[tuple[str, int], Mapping[str, Any]] = field(default_factory=dict)

    def prompt_preferences(self, task: str, seed: int, preference: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Return what the user of a preference `[K]` wants of each test prompt, `[P, K]`, as any evaluation says it.

        None where that is the preference itself, or nothing was evaluated.
        """
        for cell in self.cells:
            if (cell.task, cell.seed) == (task, seed) and self.tasks[task].contextual:
                found = cell.evaluation(preference)
                if found is not None:
                    return found.prompt_preferences
        return None

    def base_utility(self, task: str, seed: int, preference: NDArray[np.float64]) -> float:
        """Return the utility of the base model for the user of a preference `[K]`; NaN where it cannot be told."""
        record = self.references.get((task, seed))
        if record is None:
            return float("nan")
        if not self.tasks[task].contextual:
            return float(utility(record.scores, preference))
        wanted = self.prompt_preferences(task, seed, preference)
        return float("nan") if wanted is None else record.utility_by(wanted)

    def beta(self, task: str, seed: int) -> float | None:
        """Return the KL coefficient of the task instance that a seed names; None where that is not on record."""
        truth = self.truths.get((task, seed))
        if truth is not None:
            return truth.beta
        return None if self.tasks[task].family_settings else self.tasks[task].beta
