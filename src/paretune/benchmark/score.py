"""Scoring a study again after a change of its audit or a metric, from what it has stored: `paretune score`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from paretune.benchmark.changes import KeptCell, kept_cells, rewards_of
from paretune.benchmark.folder import check_folder, settle
from paretune.benchmark.measurements.evaluation import Evaluation, rescore
from paretune.benchmark.measurements.reference import Reference
from paretune.benchmark.runner import task_info
from paretune.benchmark.study import COPY, Study, load_study
from paretune.core.digests import bytes_digest
from paretune.core.errors import StudyError
from paretune.core.protocols import Table
from paretune.core.task import Task
from paretune.records.reading import read_lock, read_tuning
from paretune.records.study import StudyRecords
from paretune.records.tables import differing
from paretune.records.writing import write_lock
from paretune.report import write_report
from paretune.training.locking import locked

SCORED = {each.name: each for each in (Evaluation, Reference)}  # whose completions are stored


@dataclass(frozen=True)
class Rescored:
    """What scoring a study again did.

    Attributes:
        page: The report, written again.
        cells: Task and audit objective -> how many cells were scored again on it.
        references: Task and audit objective -> how many base models were.
        left: Finished cells and base models whose completions could not be scored again, each with the reason: damage,
            or others that the study asks for now; `paretune run` samples them again.
    """

    page: Path
    cells: Mapping[tuple[str, str], int]
    references: Mapping[tuple[str, str], int]
    left: tuple[tuple[str, str], ...]


def score(folder: str | Path, source: str | Path | Mapping[str, object] | Study | None = None) -> Rescored:
    """Score the stored completions of a study again on every audit objective that was changed; nothing is sampled.

    The report is written again whatever has changed, so that all metrics are those of today. Changed objectives, which
    policies were trained for, are for `score_apart`.

    Args:
        folder: The study's folder.
        source: Its study file; by default the copy in the folder.

    Raises:
        RecordError: If the folder is no study.
        StudyError: If it is in use or holds another study, or its copy of the study file, or an objective that stages
            trained with, was changed.
        RewardError: If a reward function failed on every completion.
    """
    root = Path(folder)
    before = read_lock(root)
    study = study_of(root, source, before)
    cells: Counter[tuple[str, str]] = Counter()
    references: Counter[tuple[str, str]] = Counter()
    tables, left = list[Table](), list[tuple[str, str]]()
    with locked(root):
        settle(root)
        finished = {cell.folder.name: cell for cell in kept_cells(root) if cell.finished}
        instances = instances_of(study, before.tables)
        _check_objectives([finished[cell.cell] for cell in before.cells if cell.cell in finished], instances)
        for table in before.tables:
            measurement, task = SCORED.get(table.measurement), instances[table.task, table.seed]
            if measurement is None:
                tables.append(table)
                continue
            scored, names, why = rescore(root, table, task, measurement().asked(task, study))
            tables.append(scored)
            (cells if table.cells else references).update((task.name, name) for name in names)
            if why and (not table.cells or finished.keys() & table.cells):
                left.append((", ".join(table.cells) or f"base model of {task.name}, seed {table.seed}", why))
        write_lock(root, replace(_with_audits(root, before, study), tables=tuple(tables)))
        page = write_report(root)
    return Rescored(page, cells, references, tuple(left))


def study_of(root: Path, source: str | Path | Mapping[str, object] | Study | None, before: StudyRecords) -> Study:
    """Return the study that a folder holds, as its file says it today.

    Args:
        root: The folder.
        source: Its study file; None for the copy in the folder.
        before: What the folder's lock says.

    Raises:
        StudyError: If it is another study, or the copy was changed.
    """
    study = load_study(source if source is not None else root / COPY)
    check_folder(study, root)
    if source is None and bytes_digest((root / COPY).read_bytes()) != before.resolved.get("copy"):
        raise StudyError(
            f"'{root / COPY}' must be as the run has written it, got changed content. Name the study file with --study."
        )
    return study


def instances_of(study: Study, tables: Sequence[Table]) -> dict[tuple[str, int], Task]:
    """Return the task instances that tables are of, by name and seed."""
    tasks = {task.name: task for task in study.tasks}
    names = sorted({(table.task, table.seed) for table in tables})
    return {(name, seed): tasks[name].instance(seed) for name, seed in names}


def _check_objectives(cells: Sequence[KeptCell], instances: Mapping[tuple[str, int], Task]) -> None:
    for cell in cells:
        name, _, _, seed, _ = cell.identity
        task = instances[name, seed]
        changed = differing(cell.made_of.get("objectives", {}), rewards_of(task.objectives))
        if changed:
            raise StudyError(
                f"objectives of task '{task.name}' must be those that stages were trained with, got another "
                f"'{changed[0]}'. Let paretune run train again what used it, or add -o DIR to report there what the "
                "policies it has trained score under the changed reward."
            )


def _with_audits(root: Path, before: StudyRecords, study: Study) -> StudyRecords:
    """Return a study's lock with the audit objectives of today; all else is as its cells and trials were made."""
    tasks = dict(before.tasks)
    for task in study.tasks:
        if task.name in tasks:
            known = tasks[task.name]
            audits = [each for each in task_info(study, task).objectives if each.audit]
            tasks[task.name] = replace(known, objectives=(*known.trained, *audits))
    return replace(before, tasks=tasks, tuning=read_tuning(root))
