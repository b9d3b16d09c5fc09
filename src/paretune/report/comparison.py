"""Methods that may be compared: same task, same budget. Arrays of what each achieved, by seed and preference."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from paretune.core.feedback import FEEDBACKS
from paretune.core.protocols import CEILING, FAMILIES, REFERENCE
from paretune.metrics.seeds import preference_labels
from paretune.records.evaluation import EvaluationRecord, utility
from paretune.records.study import CellRecord, StudyRecords, TaskInfo

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class MethodResult:
    """One method of a comparison. NaN wherever nothing was measured.

    Attributes:
        name: Its name.
        family: Its family.
        cells: Its planned cells by seed.
        scores: Mean rewards of the K objectives, `[S, P, K]`.
        audit_scores: Mean rewards of the audit objectives, `[S, P, A]`.
        utilities: Preference-weighted scores, `[S, P]`.
        kl: Sequence-level KL to the base model in nats, `[S, P]`.
        judged: What the task is judged on, J or utility, `[S, P]`.
        answers: How each preference was answered, by the first seed that was, `[P]`.
    """

    name: str
    family: str
    cells: dict[int, CellRecord]
    scores: FloatArray
    audit_scores: FloatArray
    utilities: FloatArray
    kl: FloatArray
    judged: FloatArray
    answers: tuple[str, ...]

    @property
    def ceiling(self) -> bool:
        """Whether it is no method but the best one could reach: shown, never ranked."""
        return self.family == CEILING

    @property
    def done(self) -> list[CellRecord]:
        """Its finished cells."""
        return [cell for cell in self.cells.values() if cell.state == "done"]

    @property
    def policies(self) -> int | None:
        """Policies it trained, experts of its first finished cell; None before one is finished."""
        return next((sum(stage.adapters for stage in cell.stages) for cell in self.done), None)

    @property
    def answering(self) -> int | None:
        """Policies that answered the preferences of its first finished cell; None before one is finished."""
        return next((len({each.identity for each in cell.evaluations}) for cell in self.done), None)

    def evaluation(self, seed: int, preference: FloatArray) -> EvaluationRecord | None:
        """Return the test evaluation of a seed and preference, or None."""
        cell = self.cells.get(seed)
        return None if cell is None or cell.state != "done" else cell.evaluation(preference)


@dataclass(frozen=True)
class Comparison:
    """All methods at one budget on one task, that are told as much of what users want of its prompts.

    Attributes:
        task: The task.
        budget_completions: Completions each cell might spend.
        seeds: Planned seeds, S of them.
        methods: In the order of the study, a ceiling last. The base model is none of them.
        base_scores: Scores of the base model by seed, `[S, K]`.
        base_audit_scores: Its audit scores, `[S, A]`.
        references: Its evaluations by seed.
        untrained: The row of the base model, evaluated as the methods are; shown in the main table beside them.
        feedback: Class of the methods, see `core.feedback`; empty on a task where what users want is their preference.
        base_utilities: Utility of the base model, `[S, P]`, which is its J: its KL is 0.
    """

    task: TaskInfo
    budget_completions: int
    seeds: tuple[int, ...]
    methods: tuple[MethodResult, ...]
    base_scores: FloatArray
    base_audit_scores: FloatArray
    references: dict[int, EvaluationRecord]
    untrained: tuple[MethodResult, ...] = ()
    feedback: str = ""
    base_utilities: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))

    @property
    def title(self) -> str:
        """Name it: `counselling, 6,000 completions`."""
        known = f", feedback {self.feedback}" if self.feedback else ""
        return f"{self.task.name}, {self.budget_completions:,} completions{known}"

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of the K objectives."""
        return tuple(each.name for each in self.task.trained)

    @property
    def audit(self) -> tuple[str, ...]:
        """Names of the audit objectives."""
        return tuple(each.name for each in self.task.objectives if each.audit)

    @cached_property
    def labels(self) -> list[str]:
        """Names of the preferences, each different, `[P]`."""
        return preference_labels(self.task)

    @cached_property
    def ends(self) -> list[tuple[float, float]]:
        """Both ends of each objective's range, then of each audit's; measured ones where the task declares none."""
        every = [each.scores for each in self.methods], [each.audit_scores for each in self.methods]
        bases = (self.base_scores, self.base_audit_scores)
        found = []
        for audit, methods, base in zip((False, True), every, bases, strict=True):
            objectives = [each for each in self.task.objectives if each.audit is audit]
            for k, objective in enumerate(objectives):
                scores = np.concatenate([base[:, k], *(each[:, :, k].ravel() for each in methods)])
                known = scores[np.isfinite(scores)]
                least, most = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
                low, high = objective.range
                low, high = low if np.isfinite(low) else least, high if np.isfinite(high) else most
                found.append((low, high) if high > low else (low, low + 1.0))
        return found

    @property
    def ranked(self) -> tuple[MethodResult, ...]:
        """The methods that are compared with each other: all but a ceiling."""
        return tuple(each for each in self.methods if not each.ceiling)

    def method(self, name: str) -> MethodResult:
        """Return the method of that name."""
        return next(each for each in (*self.methods, *self.untrained) if each.name == name)


def comparisons(study: StudyRecords) -> tuple[Comparison, ...]:
    """Return one comparison for each task and budget, in the order of the study.

    On a task where what users want depends on the prompt, one for each class of feedback that methods have.
    """
    keys = dict.fromkeys((cell.task, cell.budget_completions) for cell in study.cells)
    return tuple(
        _comparison(study, study.tasks[task], budget, feedback)
        for task, budget in keys
        for feedback in _classes(study, task, budget)
    )


def _classes(study: StudyRecords, task: str, budget: int) -> list[str]:
    """Return the classes of feedback of the methods at one budget on one task; one empty word without context."""
    if not study.tasks[task].contextual:
        return [""]
    cells = [cell for cell in study.cells if (cell.task, cell.budget_completions) == (task, budget)]
    return sorted({cell.feedback for cell in cells if cell.family in FAMILIES} or {"told"}, key=FEEDBACKS.index)


def _comparison(study: StudyRecords, task: TaskInfo, budget: int, feedback: str) -> Comparison:
    cells = [
        cell
        for cell in study.cells
        if cell.task == task.name
        and cell.budget_completions == budget
        and (not feedback or cell.feedback == feedback or cell.family not in FAMILIES)
    ]
    seeds = tuple(sorted({cell.seed for cell in cells}))
    references = {seed: study.references[task.name, seed] for seed in seeds if (task.name, seed) in study.references}
    base = np.full((len(seeds), len(task.trained)), np.nan)
    base_audit = np.full((len(seeds), len(task.objectives) - len(task.trained)), np.nan)
    for row, seed in enumerate(seeds):
        if seed in references:
            base[row], base_audit[row] = references[seed].scores, references[seed].audit_scores
    names = dict.fromkeys(cell.method for cell in cells)
    betas = [study.beta(task.name, seed) for seed in seeds]
    prices = np.array([np.nan if beta is None else beta for beta in betas])
    rows = [_method_result(task, seeds, prices, [cell for cell in cells if cell.method == name]) for name in names]
    methods = tuple(sorted((each for each in rows if each.family != REFERENCE), key=lambda method: method.ceiling))
    untrained = tuple(each for each in rows if each.family == REFERENCE)
    base_utilities = np.stack([utility(base, each) for each in task.preferences], axis=1)
    if feedback:
        for row, seed in enumerate(seeds):
            base_utilities[row] = [study.base_utility(task.name, seed, each) for each in task.preferences]
    return Comparison(task, budget, seeds, methods, base, base_audit, references, untrained, feedback, base_utilities)


def _method_result(task: TaskInfo, seeds: tuple[int, ...], betas: FloatArray, cells: list[CellRecord]) -> MethodResult:
    shape = (len(seeds), len(task.preferences))
    scores = np.full((*shape, len(task.trained)), np.nan)
    audit_scores = np.full((*shape, len(task.objectives) - len(task.trained)), np.nan)
    utilities, kl = np.full(shape, np.nan), np.full(shape, np.nan)
    answers = [""] * shape[1]
    by_seed = {cell.seed: cell for cell in sorted(cells, key=lambda cell: cell.seed)}
    for row, seed in enumerate(seeds):
        cell = by_seed.get(seed)
        if cell is None or cell.state != "done":
            continue
        utilities[row] = cell.utilities(task.preferences)
        for column, preference in enumerate(task.preferences):
            found = cell.evaluation(preference)
            if found is None:
                continue
            scores[row, column], audit_scores[row, column] = found.scores, found.audit_scores
            kl[row, column] = found.kl
            answers[column] = answers[column] or found.answer
    judged = utilities - betas[:, None] * kl if task.judged_on == "J" else utilities
    first = cells[0]
    return MethodResult(
        first.method, first.family, by_seed, scores, audit_scores, utilities, kl, judged, tuple(answers)
    )  # fmt: skip
