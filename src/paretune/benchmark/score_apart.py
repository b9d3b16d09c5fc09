"""Scoring stored completions by rewards that were changed after training, into a report of its own.

Policies are still those that the rewards before the change have trained, and the study's folder stays as it is: its
cells are found by those rewards, and count again at once if the change is taken back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from paretune.benchmark.measurements.evaluation import reward_pairs, scored_anew
from paretune.benchmark.runner import task_info
from paretune.benchmark.score import instances_of, study_of
from paretune.benchmark.study import Study
from paretune.core.digests import digest
from paretune.core.errors import ConfigError, StudyError
from paretune.core.protocols import Table
from paretune.core.task import Task
from paretune.records.evaluation import EvaluationRecord
from paretune.records.layout import cell_folder, evaluations_folder, lock_path, outcomes_folder, reference_folder
from paretune.records.reading import read_study
from paretune.records.study import CellRecord, StudyRecords
from paretune.records.tables import look
from paretune.report import write_report

BEFORE = "measured by the rewards before the change"
Pairs = list[list[str]]  # names and digests of rewards


@dataclass(frozen=True)
class ScoredApart:
    """What scoring a study again, apart from its folder, did.

    Attributes:
        page: The report.
        changed: Task -> names of the objectives, audit included, whose rewards had changed.
        cells: How many cells were scored again.
    """

    page: Path
    changed: Mapping[str, tuple[str, ...]]
    cells: int


def score_apart(folder: str | Path, output: str | Path, source: str | Path | Study | None = None) -> ScoredApart:
    """Score the stored completions of a study by the rewards of today, and report that in another folder.

    Nothing is sampled or trained. The report's name says which rewards have changed since training. What only training
    or sampling could tell under them is missing there: utility at equal KL, and measurements on request.

    Args:
        folder: The study's folder, which is only read.
        output: Folder of the report; must hold no study.
        source: Its study file; by default the copy in the folder.

    Raises:
        RecordError: If the folder is no study.
        ConfigError: If the output holds a study.
        StudyError: If no stored completion can be scored by these rewards: the task's completions are listed and not
            sampled, its test prompts are others, or so are the names of its objectives
        RewardError: If a reward function failed on every completion.
    """
    root, target = Path(folder), Path(output)
    if lock_path(target).exists():
        raise ConfigError(
            f"output must be a folder of its own, got '{target}', which holds a study. Name another with -o."
        )
    records = read_study(root)
    study = study_of(root, source, records)
    instances = instances_of(study, records.tables)
    changed: dict[str, set[str]] = {}
    references = {
        (name, seed): _scored(
            [record], _stored(root, reference_folder(root, name, seed)), instances[name, seed], changed
        )[0]
        for (name, seed), record in records.references.items()
    }
    cells = tuple(_cell(root, cell, instances[cell.task, cell.seed], changed) for cell in records.cells)
    names = {task: tuple(sorted(each)) for task, each in changed.items()}
    found = replace(
        records,
        name=f"{records.name}, scored by changed rewards ({_said(names)}); policies were trained before the change",
        folder=None,
        cells=cells,
        references=references,
        tasks={name: _info(study, records, name) for name in records.tasks},
        tables=tuple(_table(table, instances[table.task, table.seed], names) for table in records.tables),
        missing={**records.missing, **_lost(records)},
    )
    if not names:
        raise StudyError(
            f"rewards must have changed since '{root}' was scored, got the same. Use `paretune report` for its report."
        )
    return ScoredApart(write_report(target, found), names, sum(cell.state == "done" for cell in cells))


def _said(names: Mapping[str, tuple[str, ...]]) -> str:
    return "; ".join(f"{task}: {', '.join(each)}" for task, each in names.items())


def _stored(root: Path, folder: Path) -> Mapping[str, Any]:
    """Return what the evaluations in a sealed folder depend on."""
    found: Mapping[str, Any] = look(root, folder.relative_to(root).as_posix()).values.get("depends_on", {})
    return found


def _scored(
    records: list[EvaluationRecord],
    before: Mapping[str, Any],
    task: Task,
    changed: dict[str, set[str]],
    trained: Pairs | None = None,
) -> list[EvaluationRecord]:
    """Return evaluations of one policy set with the rewards of today; what has changed is added to `changed`."""
    if before.get("test prompts") != digest(list(task.splits["test"])):
        raise StudyError(
            f"test prompts of task '{task.name}' must be those that were answered, got others. Let paretune run sample "
            "anew."
        )
    then, now = [*(trained or []), *before["rewards"]], reward_pairs((*task.objectives, *task.audit))
    objectives = [name for name, _ in then[: len(records[0].objectives)]]
    if objectives != list(task.objective_names):
        raise StudyError(
            f"objectives of task '{task.name}' must have the names they were trained under, {', '.join(objectives)}, "
            f"got {', '.join(task.objective_names)}. Let paretune run train anew."
        )
    known = dict(then)
    different = [name for name, key in now if known.get(name) != key]
    if task.enumeration is not None and set(different) & set(objectives):
        raise StudyError(
            f"rewards of task '{task.name}' must be as they were, since its scores are sums over all completions and "
            f"not over stored ones, got another '{different[0]}'. Let paretune run train anew."
        )
    if different:
        changed.setdefault(task.name, set()).update(different)
    return scored_anew(records, {"rewards": then}, {"rewards": now}, task)


def _cell(root: Path, cell: CellRecord, task: Task, changed: dict[str, set[str]]) -> CellRecord:
    if cell.state != "done":
        return cell
    if not cell.made_of:
        raise StudyError(
            f"cell '{cell.cell}' must say which rewards it was trained with, got a record of an earlier version. Take "
            "the change of the rewards back, let paretune run finish the study, and change them then."
        )
    trained = [list(pair) for pair in cell.made_of["objectives"].items()]
    stored = _stored(root, evaluations_folder(root, cell.cell))
    evaluations = _scored(list(cell.evaluations), stored, task, changed, trained)
    return replace(
        cell, evaluations=tuple(evaluations), outcomes=cell.outcomes if task.enumeration else None, measured={}
    )


def _info(study: Study, records: StudyRecords, name: str) -> Any:
    task = next(each for each in study.tasks if each.name == name)
    return replace(records.tasks[name], objectives=task_info(study, task).objectives)


def _table(table: Table, task: Task, names: Mapping[str, tuple[str, ...]]) -> Table:
    """Return a table of evaluations with what it was scored by, so that nobody compares it with others unawares."""
    if table.measurement not in ("evaluation", "reference") or task.name not in names:
        return table
    keys = dict(reward_pairs((*task.objectives, *task.audit)))
    scored = {name: keys[name] for name in names[task.name] if name in task.objective_names}
    rewards = reward_pairs(task.audit if table.cells else (*task.objectives, *task.audit))
    return replace(table, depends_on={**table.depends_on, "rewards": rewards, **({"scored": scored} if scored else {})})


def _lost(records: StudyRecords) -> dict[str, str]:
    """Return the folders of tables that only the rewards before the change have made."""
    folders = [outcomes_folder(Path(), cell.cell) for cell in records.cells if not records.tasks[cell.task].listed] + [
        cell_folder(Path(), cell.cell) / name for cell in records.cells for name in cell.measured
    ]
    asked = {table.folder for table in records.tables}
    return {each.as_posix(): BEFORE for each in folders if each.as_posix() in asked}
