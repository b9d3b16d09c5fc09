"""Read a study back from its folder, finished or not. What one cell has lost costs that cell, never the others.

Layout:
    study.lock.json                      name, resolved study, tasks, planned cells, environment, tuning
    stages/<key>/                        stage.json, ledger.json, artefacts, DONE.json
    runs/<cell>/                         cell.json, solution.json, evaluations/<index>.parquet, outcomes.json,
                                         DONE.json | FAILED.json
    tuning/<cell>/                       score.json, DONE.json | FAILED.json: a cell of the sweep over settings
    references/<task>-<seed>.parquet     the base model on the test prompts
    references/<task>-<seed>.truth.json  what can be reached, where completions can be listed
    timing.json                          decoding times
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from paretune.core.errors import RecordError
from paretune.core.ledger import Ledger
from paretune.core.preferences import SAME_PREFERENCE
from paretune.core.stages import adapter_names
from paretune.records.evaluation import EvaluationRecord
from paretune.records.evaluations import read_evaluation
from paretune.records.files import (
    AGAIN,
    DONE,
    FAILED,
    SCHEMA_VERSION,
    check_sealed,
    read_json,
    read_marker,
    why_not_done,
)
from paretune.records.layout import (
    cell_folder,
    evaluation_path,
    lock_path,
    outcome_path,
    reference_path,
    stage_folder,
    timing_path,
    truth_path,
)
from paretune.records.outcomes import TruthRecord, read_outcome, read_truth, with_exact
from paretune.records.study import (
    FAILURE_REASONS,
    CellRecord,
    ObjectiveInfo,
    StageRecord,
    StudyRecords,
    TaskInfo,
    TimingRecord,
    TuningPoint,
    TuningRecord,
)


def read_study(folder: Path) -> StudyRecords:
    """Read a study.

    Cells that are neither finished nor failed are `pending`; so is a finished cell whose files are damaged, with a
    message that says which. A reference evaluation that cannot be read is left out, and so is one without its record of
    what can be reached where completions can be listed: sampled scores must not stand in for exact ones.

    Args:
        folder: What `paretune run` wrote.

    Returns:
        Everything known of it. Stages are read without their artefacts, so records can be passed on without them.

    Raises:
        RecordError: If the folder is no study, or `study.lock.json` or `timing.json` is damaged.
    """
    study = read_lock(folder)
    stages: dict[str, StageRecord] = {}
    cells = tuple(_cell(folder, study, cell, stages) for cell in study.cells)
    references, truths = _references(folder, study)
    return replace(
        study,
        cells=cells,
        references=references,
        truths=truths,
        timings=read_timings(folder),
        tuning=read_tuning(folder),
    )


def read_lock(folder: Path) -> StudyRecords:
    """Read the plan of a study: every cell is pending, nothing else is looked at, and tuning is left out.

    Raises:
        RecordError: If the folder is no study, or its lock is damaged or of another version.
    """
    path = lock_path(folder)
    if not path.exists():
        raise RecordError(f"{folder} must be a study, got no {path.name} in it. Give the folder `paretune run` wrote.")
    lock = read_json(path)
    with _fields_of(path):
        if lock["schema_version"] != SCHEMA_VERSION:
            raise RecordError(
                f"{path} must have schema version {SCHEMA_VERSION}, got {lock['schema_version']}. "
                "Read it with the paretune that wrote it."
            )
        return StudyRecords(
            name=lock["name"],
            folder=folder,
            resolved=lock["resolved"],
            tasks={name: _task(info) for name, info in lock["tasks"].items()},
            cells=tuple(_planned(cell) for cell in lock["cells"]),
            environment=lock["environment"],
        )


def read_tuning(folder: Path) -> tuple[TuningRecord, ...]:
    """Read the finished sweeps over settings from `study.lock.json`.

    Raises:
        RecordError: If they are damaged.
    """
    path = lock_path(folder)
    with _fields_of(path):
        return tuple(
            TuningRecord(
                task=each["task"],
                method=each["method"],
                measure=each["measure"],
                budget_completions=each["budget_completions"],
                preferences=np.array(each["preferences"], dtype=np.float64),
                points=tuple(
                    TuningPoint(
                        settings=dict(point["settings"]),
                        score=point["score"],
                        per_seed={int(seed): score for seed, score in point["per_seed"].items()},
                        reason=point["reason"],
                    )
                    for point in each["points"]
                ),
                chosen=each["chosen"],
                completions=each["completions"],
                seconds=each["seconds"],
            )
            for each in read_json(path)["tuning"]
        )


def read_stage(folder: Path, key: str) -> StageRecord:
    """Read what a finished stage of a study cost.

    Raises:
        RecordError: If its files are missing or damaged.
    """
    path = stage_folder(folder, key)
    check_sealed(path)
    stage, ledger_state, done = read_json(path / "stage.json"), read_json(path / "ledger.json"), read_marker(path)
    with _fields_of(path):
        ledger = Ledger.from_state(ledger_state)
        return StageRecord(
            key=key,
            kind=stage["kind"],
            needs=tuple(stage["needs"]),
            counts=ledger.counts,
            repeated=ledger.repeated,
            seconds=math.fsum(ledger.seconds.values()),
            phases=ledger.seconds,
            peak_memory_bytes=ledger.peak_memory_bytes,
            adapters=len(adapter_names(done["artefacts"])),
            scored=tuple(ledger.scored),
            missing=tuple(ledger.missing),
        )


def read_reference(folder: Path, task: str, seed: int, exact: bool) -> tuple[EvaluationRecord, TruthRecord | None]:
    """Read how the base model did on the test prompts of a task instance.

    Args:
        folder: The study's folder.
        task: Name of the task.
        seed: Names the instance.
        exact: Whether its completions can be listed, so that scores are exact and the optimum is known.

    Returns:
        Its evaluation, and what can be reached, None where that is not known.

    Raises:
        RecordError: If a file is missing or damaged, or the two are not of the same prompts and objectives.
    """
    evaluation = read_evaluation(reference_path(folder, task, seed))
    if not exact:
        return evaluation, None
    truth = read_truth(truth_path(folder, task, seed))
    return with_exact(evaluation, truth.reference_rewards, np.zeros(len(truth.reference_rewards))), truth


def read_timings(folder: Path) -> tuple[TimingRecord, ...]:
    """Read the decoding times of a study; none where nothing was timed.

    Raises:
        RecordError: If the file is damaged.
    """
    path = timing_path(folder)
    if not path.exists():
        return ()
    timings = read_json(path)
    with _fields_of(path):
        return tuple(
            TimingRecord(
                task=timing["task"],
                method=timing["method"],
                rows=timing["rows"],
                tokens_per_second=tuple(timing["tokens_per_second"]),
                base_tokens_per_second=tuple(timing["base_tokens_per_second"]),
                threads=timing["threads"],
                device=timing["device"],
            )
            for timing in timings
        )


def _cell(folder: Path, study: StudyRecords, planned: CellRecord, stages: dict[str, StageRecord]) -> CellRecord:
    """Read one cell; `stages` holds those read before, for cells that share them."""
    path = cell_folder(folder, planned.cell)
    trouble = why_not_done(path)
    if not trouble:
        try:
            return _finished(folder, study, planned, stages)
        except RecordError as error:
            return replace(planned, message=str(error))
    if (path / FAILED).exists():
        return _failed(folder, planned, stages)
    return replace(planned, message=f"{trouble} {AGAIN}") if (path / DONE).exists() else planned


def _finished(folder: Path, study: StudyRecords, planned: CellRecord, stages: dict[str, StageRecord]) -> CellRecord:
    path = cell_folder(folder, planned.cell) / "cell.json"
    cell = read_json(path)
    with _fields_of(path):
        if _planned(cell) != planned:
            raise RecordError(f"{path} must describe cell {planned.cell}, got {cell['cell']}. {AGAIN}")
        keys = list(cell["stages"])
    for key in keys:
        if key not in stages:
            stages[key] = read_stage(folder, key)
    count = len(study.tasks[planned.task].preferences)
    evaluations = [read_evaluation(evaluation_path(folder, planned.cell, index)) for index in range(count)]
    names = [objective.name for objective in study.tasks[planned.task].objectives]
    for each in evaluations:
        if [*each.objectives, *each.audit] != names:
            found = ", ".join((*each.objectives, *each.audit))
            raise RecordError(f"evaluations of {planned.cell} must be of {', '.join(names)}, got {found}. {AGAIN}")
    path = outcome_path(folder, planned.cell)
    outcomes = read_outcome(path) if path.exists() else None
    if outcomes is not None and outcomes.exact:
        answered = np.array([each.preference for each in evaluations])
        known = outcomes.preferences
        if known.shape != answered.shape or np.abs(known - answered).max() > SAME_PREFERENCE:
            raise RecordError(f"{path} must be of the preferences that were evaluated, got {known.tolist()}. {AGAIN}")
        with _fields_of(path):
            evaluations = [with_exact(*each) for each in zip(evaluations, *outcomes.at_scale(1.0), strict=True)]
    return replace(
        planned,
        state="done",
        stages=tuple(stages[key] for key in keys),
        evaluations=tuple(evaluations),
        outcomes=outcomes,
        message="",
    )


def _failed(folder: Path, planned: CellRecord, stages: dict[str, StageRecord]) -> CellRecord:
    path = cell_folder(folder, planned.cell)
    try:
        failure = read_json(path / FAILED)
        with _fields_of(path / FAILED):
            reason, message = failure["reason"], failure["message"]
    except RecordError as error:
        reason, message = None, str(error)
    known = reason if reason in FAILURE_REASONS else None
    return replace(
        planned, state="failed", reason=known, message=message, stages=_finished_stages(folder, path, stages)
    )


def _finished_stages(folder: Path, cell: Path, stages: dict[str, StageRecord]) -> tuple[StageRecord, ...]:
    """Read those stages of an unfinished cell that were finished; what cannot be read was not."""
    try:
        with _fields_of(cell):
            keys = [
                key for key in read_json(cell / "cell.json")["stages"] if (stage_folder(folder, key) / DONE).exists()
            ]
        for key in keys:
            if key not in stages:
                stages[key] = read_stage(folder, key)
    except RecordError:
        return ()
    return tuple(stages[key] for key in keys)


def _references(
    folder: Path, study: StudyRecords
) -> tuple[dict[tuple[str, int], EvaluationRecord], dict[tuple[str, int], TruthRecord]]:
    references, truths = {}, {}
    for task, seed in sorted({(cell.task, cell.seed) for cell in study.cells}):
        with contextlib.suppress(RecordError):  # metrics that need it say that it is missing or damaged
            references[task, seed], truth = read_reference(folder, task, seed, study.tasks[task].listed)
            if truth is not None:
                truths[task, seed] = truth
    return references, truths


def _planned(cell: Mapping[str, Any]) -> CellRecord:
    return CellRecord(
        cell=cell["cell"],
        task=cell["task"],
        method=cell["method"],
        family=cell["family"],
        budget_completions=cell["budget_completions"],
        seed=cell["seed"],
        state="pending",
    )


def _task(info: Mapping[str, Any]) -> TaskInfo:
    return TaskInfo(
        name=info["name"],
        objectives=tuple(
            ObjectiveInfo(
                name=objective["name"],
                range=_range(*objective["range"]),
                pass_threshold=objective["pass_threshold"],
                version=objective["version"],
                audit=objective["audit"],
            )
            for objective in info["objectives"]
        ),
        reference_point=np.array(info["reference_point"], dtype=np.float64),
        beta=info["beta"],
        model=info["model"],
        test_prompts=info["test_prompts"],
        samples=info["samples"],
        preferences=np.array(info["preferences"], dtype=np.float64),
        unseen=np.array(info["unseen"], dtype=np.bool_),
        listed=bool(info["listed"]),
        family_settings={name: float(value) for name, value in info["family_settings"].items()},
    )


def _range(low: float | None, high: float | None) -> tuple[float, float]:
    return (-math.inf if low is None else low, math.inf if high is None else high)


@contextmanager
def _fields_of(path: Path) -> Iterator[None]:
    """Turn a missing or misplaced field into an error that names the file."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(f"{path} must have all its fields, got trouble with {error}. {AGAIN}") from error
