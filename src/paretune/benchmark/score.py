"""Scoring a study again after a change of its audit, from the completions it has stored: `paretune score`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from paretune.benchmark.changes import KeptCell, differing, kept_cells, rewards_of
from paretune.benchmark.evaluating import write_rescored_reference
from paretune.benchmark.folder import check_folder, locked
from paretune.benchmark.rescoring import audit_changes, rescore_cell, stored_reference
from paretune.benchmark.runner import task_info
from paretune.benchmark.study import COPY, Study, load_study
from paretune.core.errors import StudyError
from paretune.core.task import Task
from paretune.records.files import settle_folders
from paretune.records.reading import read_lock, read_tuning
from paretune.records.study import StudyRecords
from paretune.records.writing import write_lock
from paretune.report import write_report


@dataclass(frozen=True)
class Rescored:
    """What scoring a study again did.

    Attributes:
        page: The report, written again.
        cells: Task and audit objective -> how many cells were scored again on it.
        references: Task and audit objective -> how many base models were.
        left: Finished cells whose completions are not those the study asks for now; `paretune run` samples them again.
    """

    page: Path
    cells: Mapping[tuple[str, str], int]
    references: Mapping[tuple[str, str], int]
    left: tuple[str, ...]


def score(folder: str | Path, source: str | Path | Mapping[str, object] | Study | None = None) -> Rescored:
    """Score the stored completions of a study again on every audit objective that was changed; nothing is sampled.

    Args:
        folder: The study's folder.
        source: Its study file; by default the copy in the folder.

    Raises:
        RecordError: If the folder is no study.
        StudyError: If it is in use or holds another study, or an objective that stages trained with was changed.
        RewardError: If a reward function failed on every completion.
    """
    root = Path(folder)
    before = read_lock(root)
    study = load_study(source if source is not None else root / COPY)
    check_folder(study, root)
    rules = study.decoding()
    cells: dict[tuple[str, str], int] = {}
    references: dict[tuple[str, str], int] = {}
    left = []
    with locked(root):
        settle_folders(root / "runs")
        asked = {cell.cell for cell in before.cells}
        finished = [cell for cell in kept_cells(root) if cell.finished and cell.folder.name in asked]
        instances = _instances(study, finished)
        _check_objectives(finished, instances)
        for cell in finished:
            name, task = cell.folder.name, instances[_instance(cell)]
            if audit_changes(cell.folder, task, rules) is None:
                left.append(name)
                continue
            _count(cells, task, rescore_cell(root, name, task, rules))
        for (task_name, seed), task in instances.items():
            stored = stored_reference(root, task, seed, rules)
            if stored is not None and stored[1]:
                preferences, _ = study.preferences(next(each for each in study.tasks if each.name == task_name))
                write_rescored_reference(root, task, seed, rules, preferences)
                _count(references, task, stored[1])
        write_lock(root, _with_audits(root, before, study))
        page = write_report(root)
    return Rescored(page, cells, references, tuple(left))


def _instance(cell: KeptCell) -> tuple[str, int]:
    task, _, _, seed, _ = cell.identity
    return task, seed


def _instances(study: Study, cells: Sequence[KeptCell]) -> dict[tuple[str, int], Task]:
    tasks = {task.name: task for task in study.tasks}
    return {(name, seed): tasks[name].instance(seed) for name, seed in sorted({_instance(cell) for cell in cells})}


def _check_objectives(cells: Sequence[KeptCell], instances: Mapping[tuple[str, int], Task]) -> None:
    for cell in cells:
        task = instances[_instance(cell)]
        changed = differing(cell.made_of.get("objectives", {}), rewards_of(task.objectives))
        if changed:
            raise StudyError(
                f"objectives of task '{task.name}' must be those that stages were trained with, got another "
                f"'{changed[0]}'. Let paretune run train again what used it; paretune score is for a changed audit."
            )


def _count(counts: dict[tuple[str, str], int], task: Task, names: Sequence[str]) -> None:
    for name in names:
        counts[task.name, name] = counts.get((task.name, name), 0) + 1


def _with_audits(root: Path, before: StudyRecords, study: Study) -> StudyRecords:
    """Return a study's lock with the audit objectives of today; all else is as its cells and trials were made."""
    tasks = dict(before.tasks)
    for task in study.tasks:
        if task.name in tasks:
            known = tasks[task.name]
            audits = [each for each in task_info(study, task).objectives if each.audit]
            tasks[task.name] = replace(known, objectives=(*known.trained, *audits))
    return replace(before, tasks=tasks, tuning=read_tuning(root))
