"""Scoring stored completions again where rewards have changed: nothing is sampled, no policy is loaded."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from paretune.benchmark.changes import differing, rewards_of
from paretune.benchmark.keys import evaluation_key, reference_sampling_key, sampling_key
from paretune.core.digests import file_digest
from paretune.core.errors import RecordError
from paretune.core.scores import Score, check_statuses
from paretune.core.task import Task
from paretune.records.evaluation import EvaluationRecord
from paretune.records.evaluations import read_evaluation, write_evaluation
from paretune.records.files import DONE, is_done, mark_done, read_json, replace_folder, write_json
from paretune.records.layout import cell_folder, evaluation_path, reference_path


def audit_changes(folder: Path, task: Task, decoding: object) -> list[str] | None:
    """Name the audit objectives whose rewards in a cell are not those of the task as it is now.

    Args:
        folder: The cell's folder.
        task: Its task instance.
        decoding: How evaluation samples.

    Returns:
        Their names; None where the cell is not finished, or its completions are no longer those that are asked for.
    """
    if not is_done(folder):
        return None
    values = read_json(folder / DONE)["values"]
    training = read_json(folder / "cell.json")["training_key"]
    if values.get("sampled") != sampling_key(training, task, decoding):
        return None
    if values["evaluation_key"] == _key(training, task, values, decoding):
        return []
    return differing(values["audit"], rewards_of(task.audit)) or [each.name for each in task.audit]  # or their order


def rescore_cell(root: Path, name: str, task: Task, decoding: object) -> list[str]:
    """Score a finished cell's completions again on the audit objectives that changed, and seal it again.

    A kill leaves the cell as it was, or as it is to be.

    Args:
        root: The study's folder.
        name: The cell.
        task: Its task instance.
        decoding: How evaluation samples.

    Returns:
        Names of those objectives; none where nothing was to do, or other completions are asked for.

    Raises:
        RewardError: If a reward function failed on every completion.
    """
    folder = cell_folder(root, name)
    changed = audit_changes(folder, task, decoding)
    if not changed:
        return []
    values, cell = read_json(folder / DONE)["values"], read_json(folder / "cell.json")
    key = _key(cell["training_key"], task, values, decoding)
    score = _scorer(task, changed)
    paths = [evaluation_path(root, name, index) for index in range(len(values["preferences"]))]
    records = [rescored(read_evaluation(path), task, score, changed) for path in paths]
    _check_scored(records, changed)
    fresh = folder.with_name(f".{name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(folder, fresh, ignore=shutil.ignore_patterns("evaluations", DONE))
    for path, record in zip(paths, records, strict=True):
        write_evaluation(record, fresh / "evaluations" / path.name)
    write_json(fresh / "cell.json", {**cell, "evaluation_key": key})
    mark_done(fresh, {**values, "audit": rewards_of(task.audit), "evaluation_key": key})
    replace_folder(fresh, folder)
    return changed


def stored_reference(root: Path, task: Task, seed: int, decoding: object) -> tuple[EvaluationRecord, list[str]] | None:
    """Return the base model's evaluation and the names of objectives whose rewards in it are not those of the task.

    Args:
        root: The study's folder.
        task: Its task instance.
        seed: Names the instance.
        decoding: How evaluation samples.

    Returns:
        None where there is none, or other completions are asked for.
    """
    path = reference_path(root, task.name, seed)
    try:
        marker = read_json(path.with_suffix(".json"))
        if marker["sampled"] != reference_sampling_key(task, decoding):
            return None
        if file_digest(path) != marker["files"][path.name]:
            return None
        return read_evaluation(path), differing(marker["rewards"], rewards_of((*task.objectives, *task.audit)))
    except (RecordError, OSError, KeyError, TypeError):  # missing, damaged, or a marker that is none
        return None


def rescored_reference(root: Path, task: Task, seed: int, decoding: object) -> EvaluationRecord | None:
    """Return the base model's evaluation with the rewards of today; None where its completions must be sampled."""
    stored = stored_reference(root, task, seed, decoding)
    if stored is None:
        return None
    record, changed = stored
    again = rescored(record, task, _scorer(task, changed), changed)
    _check_scored([again], changed)
    return again


def _check_scored(records: Sequence[EvaluationRecord], changed: Collection[str]) -> None:
    """Refuse completions that were scored again without one score of a reward that changed."""
    names = (*records[0].objectives, *records[0].audit)
    own = [k for k, name in enumerate(names) if name in changed]
    faults = [f"{names[k]} ({records[0].statuses[0, k]}), logs say what it did" for k in own]
    check_statuses([each.statuses[:, own] for each in records], faults)


def rescored(record: EvaluationRecord, task: Task, score: Score | None, changed: Collection[str]) -> EvaluationRecord:
    """Return an evaluation with the objectives a task has now; rewards that have not changed stay as they are.

    Args:
        record: The evaluation, of the task's test prompts.
        task: The task instance.
        score: Scores the changed objectives, in the task's order; None where only some were removed.
        changed: Names of objectives that changed or are new.
    """
    columns = {
        name: (record.rewards[:, index], record.statuses[:, index])
        for index, name in enumerate((*record.objectives, *record.audit))
    }
    if score is not None:
        rows = {str(row["prompt_id"]): row for row in task.splits["test"]}
        scores = score([rows[prompt] for prompt in record.prompt_ids], record.completions)
        again = [each.name for each in (*task.objectives, *task.audit) if each.name in changed]
        columns |= {name: (scores.rewards[:, k], scores.statuses[:, k]) for k, name in enumerate(again)}
    wanted = [columns[each.name] for each in (*task.objectives, *task.audit)]
    return replace(
        record,
        audit=tuple(each.name for each in task.audit),
        rewards=np.stack([rewards for rewards, _ in wanted], axis=1),
        statuses=np.stack([statuses for _, statuses in wanted], axis=1),
    )


def _scorer(task: Task, changed: Collection[str]) -> Score | None:
    from paretune.objectives.scoring import Scorer

    again = [each for each in (*task.objectives, *task.audit) if each.name in changed]
    return Scorer(again) if again else None


def _key(training: str, task: Task, values: Mapping[str, Any], decoding: object) -> str:
    """Return the evaluation key of what a marker says was evaluated, by the task as it is now."""
    told, preferences = (np.asarray(values[name], dtype=np.float64) for name in ("told", "preferences"))
    return evaluation_key(training, task, told, preferences, decoding)
