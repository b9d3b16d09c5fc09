"""What somebody can choose from in a finished study: the measured policies of one cell, with scores and texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError, StudyError
from paretune.core.preferences import FloatArray
from paretune.records.evaluation import EvaluationRecord, utility
from paretune.records.layout import cell_folder
from paretune.records.reading import read_study
from paretune.records.study import CellRecord, StudyRecords, TaskInfo


@dataclass(frozen=True, eq=False)
class Candidates:
    """Different policies of one cell, each with the scores of all objectives.

    Attributes:
        study: Name of the study.
        folder: Of the cell, from which `paretune generate` answers.
        task: The task.
        cell: The cell.
        evaluations: One a policy, N in all, on the same prompts.
        beta: What a nat of KL costs, where the task is judged on J; else 0.
    """

    study: str
    folder: Path
    task: TaskInfo
    cell: CellRecord
    evaluations: tuple[EvaluationRecord, ...]
    beta: float

    @property
    def worth(self) -> FloatArray:
        """What a preference weighs, `[N, K]`: scores, and less `beta KL` each where the task is judged on J."""
        return np.stack([_worth(each, self.beta) for each in self.evaluations])

    @property
    def units(self) -> FloatArray:
        """The width of each objective's range, `[K]`; where that has no end, how far the policies are apart."""
        widths = np.array([high - low for low, high in (each.range for each in self.task.trained)])
        apart = np.ptp(np.stack([each.scores for each in self.evaluations]), axis=0)
        return np.where(np.isfinite(widths), widths, np.where(apart > 0, apart, 1.0))

    def answering(self, preference: FloatArray) -> int | None:
        """Return which policy answers a preference `[K]` that was measured, None where none did."""
        record = self.cell.evaluation(preference)
        same = [index for index, each in enumerate(self.evaluations) if record and each.identity == record.identity]
        return same[0] if same else None

    def samples(self, first: int, second: int, turn: int, count: int) -> list[tuple[str, str, str]]:
        """Return some prompts, each with what two policies said to it; those only that they answer differently.

        Args:
            first: Number of a policy.
            second: Of another.
            turn: How often something was shown before: other turns, other prompts.
            count: How many prompts; fewer where there are not so many, all the same where they answer all alike.
        """
        a, b = (self.evaluations[each] for each in (first, second))
        said = dict(zip(zip(b.prompt_ids, b.samples.tolist(), strict=True), b.completions, strict=True))
        rows: dict[str, tuple[str, str, str]] = {}
        for name, sample, prompt, text in zip(a.prompt_ids, a.samples.tolist(), a.prompts, a.completions, strict=True):
            other = said.get((name, sample))
            if other is not None and (name not in rows or (text != other and rows[name][1] == rows[name][2])):
                rows[name] = prompt, text, other
        differing = [row for row in rows.values() if row[1] != row[2]] or list(rows.values())
        return [differing[(turn * count + place) % len(differing)] for place in range(min(count, len(differing)))]


def candidates(folder: str | Path, task: str | None = None, method: str | None = None) -> Candidates:
    """Return the measured policies of a study to choose from.

    Those of one method, at its largest budget, of the first seed that has finished.

    Args:
        folder: Folder of a study.
        task: One of its tasks; needed where it has several.
        method: Label of a method; by default the one whose answers are worth most, on average over preferences and
            seeds, of those with several policies.

    Raises:
        RecordError: If the folder is no study.
        UnknownNameError: If it has no such task or method.
        StudyError: If nothing can be compared, with the reason.
    """
    root = Path(folder)
    study = read_study(root)
    if task is None and len(study.tasks) > 1:
        raise ConfigError(f"task must be one of {', '.join(study.tasks)}, got none. Name one with --task.")
    name = next(iter(study.tasks)) if task is None else check_choice("task", task, study.tasks)
    info = study.tasks[name]
    if info.contextual:
        raise StudyError(
            f"users of task '{name}' must want the same of every prompt, got a task whose preferences depend on the "
            "prompt. Compare policies of another task."
        )
    cells = [cell for cell in study.cells if cell.task == name and cell.state == "done"]
    if not cells:
        raise StudyError(f"study '{study.name}' must have a finished cell of '{name}', got none. Run it first.")
    labels = dict.fromkeys(cell.method for cell in cells)
    if method is not None:
        check_choice("method", method, labels)
    of_method = {
        label: _of_method(study, root, info, [each for each in cells if each.method == label]) for label in labels
    }
    choosable = {label: each for label, each in of_method.items() if len(each[0].evaluations) > 1}
    if not choosable or (method is not None and method not in choosable):
        others = f" Name another with --method: {', '.join(choosable)}." if choosable else " Run a method with several."
        what = f"method '{method}'" if method is not None else f"a method of '{name}'"
        raise StudyError(
            f"{what} must have two policies that are scored on all objectives, to compare them, got fewer.{others}"
        )
    if method is None:
        ranked = [label for label in choosable if choosable[label][0].cell.family != "ceiling"] or list(choosable)
        method = max(
            ranked, key=lambda label: np.nan_to_num(choosable[label][1], nan=-np.inf)
        )  # of equal ones the first
    return choosable[method][0]


def _of_method(
    study: StudyRecords, root: Path, info: TaskInfo, cells: Sequence[CellRecord]
) -> tuple[Candidates, float]:
    """Return what a method's first cell at its largest budget offers, and what its answers are worth on average."""
    largest = max(cell.budget_completions for cell in cells)
    chosen = sorted((cell for cell in cells if cell.budget_completions == largest), key=lambda cell: cell.seed)
    betas = {cell.seed: _beta(study, info, cell.seed) for cell in chosen}
    worth = np.mean(
        [
            utility(_worth(each, betas[cell.seed]), each.preference)
            for cell in chosen
            for each in cell.evaluations
            if each.split == "test"
        ]
    )
    first = chosen[0]
    different: dict[str, EvaluationRecord] = {}
    for each in first.evaluations:
        if each.split == "test" and np.isfinite(_worth(each, betas[first.seed])).all():
            different.setdefault(each.identity, each)
    folder = cell_folder(root, first.cell)
    offered = tuple(different.values())
    return Candidates(study.name, folder, info, first, offered, betas[first.seed]), float(worth)


def _beta(study: StudyRecords, info: TaskInfo, seed: int) -> float:
    """Return what a nat of KL costs, where policies are judged on that; NaN where it is not on record."""
    if info.judged_on != "J":
        return 0.0
    beta = study.beta(info.name, seed)
    return float("nan") if beta is None else beta


def _worth(evaluation: EvaluationRecord, beta: float) -> FloatArray:
    return np.asarray(evaluation.scores - beta * evaluation.kl if beta else evaluation.scores)
