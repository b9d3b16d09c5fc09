"""What the runner writes into a study: plan, stages, cells, evaluations, times. `reading` is the exact inverse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from paretune.core.ledger import Ledger
from paretune.core.stages import Stage
from paretune.core.task import Task
from paretune.records.files import SCHEMA_VERSION, write_json, write_signed
from paretune.records.layout import cell_folder, lock_path, stage_folder
from paretune.records.study import CellRecord, StudyRecords, TaskInfo, TuningRecord


def write_lock(folder: Path, study: StudyRecords) -> None:
    """Write `study.lock.json`: name, resolved study, tasks, planned cells, environment and tuning of a study.

    Args:
        folder: The study's folder.
        study: The plan; of its cells only what names them is written, results are read from their folders.

    Raises:
        RecordError: If the resolved study is no plain data, or the disk is full.
    """
    write_signed(
        lock_path(folder),
        {
            "schema_version": SCHEMA_VERSION,
            "name": study.name,
            "resolved": study.resolved,
            "tasks": {name: task_plain(info) for name, info in study.tasks.items()},
            "environment": study.environment,
            "cells": [_identity(cell) for cell in study.cells],
            "tables": [vars(table) for table in study.tables],
            "tuning": [_tuning(each) for each in study.tuning],
        },
    )


def stage_record(stage: Stage, task: Task) -> dict[str, object]:
    """Return what `stage.json` holds: all that a stage is asked for as, so that it can be written again."""
    return {
        "schema_version": SCHEMA_VERSION,
        "key": stage.key(task),
        "kind": stage.kind,
        "run": stage.run,
        "version": stage.version,
        "settings": dict(stage.settings),
        "member": dict(stage.member),
        "needs": [need.key(task) for need in stage.needs],
        "completions": stage.completions,
        "seed": stage.seed,
        "trajectory": stage.trajectory_key(task),
    }


def write_stage(folder: Path, stage: Stage, task: Task) -> Path:
    """Write a stage's `stage.json`.

    Args:
        folder: The study's folder.
        stage: The stage.
        task: Its task, which is part of its key.

    Returns:
        The stage's folder.

    Raises:
        RecordError: If its settings are no plain data, or the disk is full.
    """
    target = stage_folder(folder, stage.key(task))
    write_json(target / "stage.json", stage_record(stage, task))
    return target


def write_ledger(folder: Path, key: str, ledger: Ledger, trained_with: Sequence[str] = ()) -> None:
    """Write what a stage has spent, `ledger.json`.

    Args:
        folder: The study's folder.
        key: The stage's key.
        ledger: Its ledger; phases must not overlap, their sum is the stage's wall-clock time.
        trained_with: Keys of the stages trained in the same population, which share that time.

    Raises:
        RecordError: If the disk is full.
    """
    write_json(stage_folder(folder, key) / "ledger.json", {**ledger.state(), "trained_with": list(trained_with)})


def write_cell(folder: Path, cell: Mapping[str, object], environment: Mapping[str, object]) -> Path:
    """Write a cell's `cell.json`.

    Args:
        folder: The study's folder.
        cell: What names it and what it is made of, see `benchmark.planned.PlannedCell.plain`.
        environment: Versions and hardware it ran on.

    Returns:
        The cell's folder; `mark_done` or `mark_failed` ends it.

    Raises:
        RecordError: If the disk is full.
    """
    target = cell_folder(folder, str(cell["cell"]))
    write_json(target / "cell.json", {"schema_version": SCHEMA_VERSION, **cell, "environment": environment})
    return target


def _identity(cell: CellRecord) -> dict[str, object]:
    return {
        "cell": cell.cell,
        "task": cell.task,
        "method": cell.method,
        "family": cell.family,
        "budget_completions": cell.budget_completions,
        "seed": cell.seed,
        **({"feedback": cell.feedback} if cell.feedback != "told" else {}),
    }


def _tuning(record: TuningRecord) -> dict[str, object]:
    return {
        "task": record.task,
        "method": record.method,
        "measure": record.measure,
        "budget_completions": record.budget_completions,
        "preferences": record.preferences,
        "points": [
            {
                "settings": dict(point.settings),
                "score": point.score,
                "per_seed": {str(seed): score for seed, score in point.per_seed.items()},
                "reason": point.reason,
            }
            for point in record.points
        ],
        "chosen": record.chosen,
        "completions": record.completions,
        "seconds": record.seconds,
    }


def task_plain(info: TaskInfo) -> dict[str, object]:
    """Return what the judge needs to know of a task as plain data; `reading.task_from_plain` is the inverse."""
    return {
        "name": info.name,
        "objectives": [
            {
                "name": objective.name,
                "range": [None if math.isinf(end) else end for end in objective.range],  # null: no bound on that side
                "pass_threshold": objective.pass_threshold,
                "version": objective.version,
                "audit": objective.audit,
            }
            for objective in info.objectives
        ],
        "reference_point": info.reference_point,
        "beta": info.beta,
        "model": info.model,
        "test_prompts": info.test_prompts,
        "samples": info.samples,
        "preferences": info.preferences,
        "unseen": info.unseen,
        "listed": info.listed,
        "family_settings": dict(info.family_settings),
        "judged_on": info.judged_on,
        **({"contextual": True} if info.contextual else {}),
    }
