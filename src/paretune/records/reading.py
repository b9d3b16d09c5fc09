"""Read a study back from its folder, finished or not. What one table has lost costs that table, never the others.

Layout:
    study.lock.json                 name, resolved study, tasks, planned cells and tables, environment, tuning
    stages/<key>/                   stage.json, ledger.json, artefacts, DONE.json
    runs/<cell>/                    cell.json, solution.json, DONE.json | FAILED.json
    runs/<cell>/evaluations/        <index>.parquet: a table
    runs/<cell>/outcomes/           outcomes.json: a table
    runs/<cell>/<measurement>/      <measurement>.json of one on request, or a user's own table
    tuning/<cell>/                  score.json: a table, of a cell of the sweep over settings
    references/<task>-<seed>/       evaluation.parquet: a table, the base model on the test prompts
    truths/<task>-<seed>/           truth.json: a table, what can be reached, where completions can be listed
    relations/<task>-<seed>/        relations.json: a table, of the first seed, how objectives relate
    timing/<task>-<method>/         timing.json: a table, decoding times

A table is a folder with DONE.json, which names its files by their digests and what the table was made of by `key`; or
with FAILED.json.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from paretune.core.errors import RecordError, VersionError
from paretune.core.feedback import feedback_of
from paretune.core.ledger import Ledger
from paretune.core.preferences import SAME_PREFERENCE
from paretune.core.protocols import Table
from paretune.core.stages import adapter_names
from paretune.records.evaluation import EvaluationRecord
from paretune.records.evaluations import read_evaluation
from paretune.records.files import AGAIN, DONE, check_sealed, read_json, read_marker, read_signed
from paretune.records.layout import (
    EVALUATION,
    MEASURED,
    OUTCOMES,
    RELATIONS,
    TABLES,
    TIMING,
    TRUTH,
    cell_folder,
    evaluation_path,
    evaluations_folder,
    lock_path,
    outcomes_folder,
    reference_folder,
    relations_folder,
    stage_folder,
    timing_folder,
    truth_folder,
)
from paretune.records.outcomes import OutcomeRecord, TruthRecord, read_outcome, read_truth, with_exact
from paretune.records.study import (
    FAILURE_REASONS,
    CellRecord,
    ObjectiveInfo,
    StageRecord,
    StudyRecords,
    TaskInfo,
    TimedBatch,
    TimingRecord,
    TuningPoint,
    TuningRecord,
)
from paretune.records.tables import Found, look, scored_before

Record = TypeVar("Record")
OUTDATED = "its audit was scored before a change, and is shown as it was"


def read_study(folder: Path) -> StudyRecords:
    """Read a study.

    Cells that are neither finished nor failed are `pending`; so is one whose files or evaluations are damaged, with a
    message that says which. Any other table that is not there, or is damaged, is left out and `missing` says why; a
    reference evaluation is left out with its record of what can be reached, and where that of exact scores is missing,
    a cell's scores are NaN: sampled scores must not stand in for exact ones.

    Args:
        folder: What `paretune run` wrote.

    Returns:
        Everything known of it. Stages are read without their artefacts, so records can be passed on without them.

    Raises:
        RecordError: If the folder is no study, or `study.lock.json` is damaged.
    """
    study = read_lock(folder)
    found = {table.folder: look(folder, table.folder, table.key) for table in study.tables}
    outdated = {each.folder: OUTDATED for each in study.tables if scored_before(found[each.folder], each)}
    missing = {name: each.why for name, each in found.items() if each.state != "finished" and name not in outdated}
    stages: dict[str, StageRecord] = {}
    reader = _Reader(folder, study, missing, stages)
    cells = tuple(reader.cell(cell) for cell in study.cells)
    references, truths = reader.references()
    return replace(
        study,
        cells=cells,
        references=references,
        truths=truths,
        timings=reader.timings(),
        relations=reader.relations(),
        tuning=read_tuning(folder),
        missing=reader.missing | outdated,
    )


def read_lock(folder: Path) -> StudyRecords:
    """Read the plan of a study: every cell is pending, nothing else is looked at, and tuning is left out.

    Raises:
        VersionError: If another version of the library wrote it.
        RecordError: If the folder is no study, or its lock is damaged.
    """
    path = lock_path(folder)
    if not path.exists() and not any((folder / name).is_dir() for name in TABLES):
        raise RecordError(f"{folder} must be a study, got no {path.name} in it. Give the folder `paretune run` wrote.")
    lock = _lock(path)
    with _fields_of(path):
        return StudyRecords(
            name=lock["name"],
            folder=folder,
            resolved=lock["resolved"],
            tasks={name: task_from_plain(info) for name, info in lock["tasks"].items()},
            cells=tuple(_planned(cell) for cell in lock["cells"]),
            tables=tuple(Table(**{**each, "cells": tuple(each["cells"])}) for each in lock["tables"]),
            environment=lock["environment"],
        )


def _lock(path: Path) -> dict[str, Any]:
    try:
        return read_signed(path)
    except VersionError:
        raise
    except RecordError as error:
        what = str(error).removesuffix(AGAIN).removeprefix(f"{path} ").strip()
        raise RecordError(
            f"{path} {what} Give `paretune run STUDY -o {path.parent}` once more: it writes this file again."
        ) from error


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
            for each in _lock(path)["tuning"]
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
            conflicts=tuple(done["values"].get("conflicts", ())),
            cpu_phases=ledger.cpu_seconds,
            attempts=tuple(ledger.attempts.values()),
            settings=stage["settings"],
        )


@dataclass(frozen=True)
class _Reader:
    """Reads what tables hold; notes in `missing` what cannot be read of those that looked whole."""

    folder: Path
    study: StudyRecords
    missing: dict[str, str]
    stages: dict[str, StageRecord]  # read before, for cells that share them

    def read(self, path: Path, read: Callable[[Path], Record]) -> Record | None:
        """Read a file of a table; None where the table is missing or cannot be read."""
        name = path.parent.relative_to(self.folder).as_posix()
        if name in self.missing or name not in {table.folder for table in self.study.tables}:
            return None
        try:
            return read(path)
        except RecordError as error:
            self.missing[name] = str(error)
            return None

    def cell(self, planned: CellRecord) -> CellRecord:
        """Read one cell."""
        name = f"runs/{planned.cell}"
        own = look(self.folder, name)
        if own.state == "failed":
            return _failed(self.folder, planned, own, self.stages)
        evaluations = evaluations_folder(Path(), planned.cell).as_posix()
        for table, reason in ((name, own.reason), (evaluations, self.missing.get(evaluations, ""))):
            if reason and own.state != "missing":
                return replace(planned, message=f"{table}: {reason}. {AGAIN}")
        if own.state != "finished":
            return planned
        try:
            return self._finished(planned)
        except RecordError as error:
            return replace(planned, message=str(error))

    def _finished(self, planned: CellRecord) -> CellRecord:
        path = cell_folder(self.folder, planned.cell) / "cell.json"
        cell = read_json(path)
        with _fields_of(path):
            if _planned(cell) != planned:
                raise RecordError(f"{path} must describe cell {planned.cell}, got {cell['cell']}. {AGAIN}")
            keys, made_of = list(cell["stages"]), dict(cell.get("made_of", {}))
            environment = dict(cell["environment"])
        for key in keys:
            if key not in self.stages:
                self.stages[key] = read_stage(self.folder, key)
        info = self.study.tasks[planned.task]
        home = evaluations_folder(self.folder, planned.cell)
        evaluations = [read_evaluation(evaluation_path(home, index)) for index in range(len(info.preferences))]
        outcomes = self.read(outcomes_folder(self.folder, planned.cell) / OUTCOMES, read_outcome)
        if outcomes is not None and outcomes.exact:
            _check_answered(evaluations, outcomes, path.with_name(OUTCOMES))
            evaluations = [with_exact(*each) for each in zip(evaluations, *outcomes.at_scale(1.0), strict=True)]
        elif outcomes is None and info.listed:
            evaluations = [_without_scores(each) for each in evaluations]
        return replace(
            planned,
            state="done",
            stages=tuple(self.stages[key] for key in keys),
            evaluations=tuple(evaluations),
            outcomes=outcomes,
            measured=self._measured(planned.cell),
            tables={
                table.measurement: self.folder / table.folder
                for table in self.study.tables
                if ":" in table.measurement and planned.cell in table.cells and table.folder not in self.missing
            },
            message="",
            made_of=made_of,
            environment=environment,
        )

    def _measured(self, cell: str) -> dict[str, Mapping[str, Any]]:
        folder = cell_folder(self.folder, cell)
        found = {name: self.read(folder / name / f"{name}.json", read_json) for name in MEASURED}
        return {name: plain for name, plain in found.items() if plain is not None}

    def references(self) -> tuple[dict[tuple[str, int], EvaluationRecord], dict[tuple[str, int], TruthRecord]]:
        """Read how base models did; where completions can be listed, with what can be reached, or not at all."""
        references, truths = {}, {}
        for task, seed in sorted({(cell.task, cell.seed) for cell in self.study.cells}):
            record = self.read(reference_folder(self.folder, task, seed) / EVALUATION, read_evaluation)
            if record is not None and self.study.tasks[task].listed:
                truth = self.read(truth_folder(self.folder, task, seed) / TRUTH, read_truth)
                if truth is None:
                    continue
                rewards = truth.reference_rewards
                record, truths[task, seed] = with_exact(record, rewards, np.zeros(len(rewards))), truth
            if record is not None:
                references[task, seed] = record
        return references, truths

    def relations(self) -> dict[tuple[str, int], Mapping[str, Any]]:
        """Read how the objectives of base models relate."""
        names = sorted({(cell.task, cell.seed) for cell in self.study.cells})
        found = {name: self.read(relations_folder(self.folder, *name) / RELATIONS, read_json) for name in names}
        return {name: plain for name, plain in found.items() if plain is not None}

    def timings(self) -> tuple[TimingRecord, ...]:
        """Read decoding times."""
        names = dict.fromkeys((cell.task, cell.method) for cell in self.study.cells)
        found = (self.read(timing_folder(self.folder, *name) / TIMING, _timing) for name in names)
        return tuple(each for each in found if each is not None)


def _check_answered(evaluations: Sequence[EvaluationRecord], outcomes: OutcomeRecord, path: Path) -> None:
    answered, known = np.array([each.preference for each in evaluations]), outcomes.preferences
    if known.shape != answered.shape or np.abs(known - answered).max() > SAME_PREFERENCE:
        raise RecordError(f"{path} must be of the preferences that were evaluated, got {known.tolist()}. {AGAIN}")


def _without_scores(evaluation: EvaluationRecord) -> EvaluationRecord:
    """Return an evaluation whose exact scores are lost, so that it has none."""
    prompts = len(set(evaluation.prompt_ids))
    return with_exact(evaluation, np.full((prompts, len(evaluation.objectives)), np.nan), np.full(prompts, np.nan))


def _timing(path: Path) -> TimingRecord:
    timing = read_json(path)
    with _fields_of(path):
        if not timing["batches"]:
            raise RecordError(f"{path} must have timed some number of rows, got none. {AGAIN}")
        return TimingRecord(**{**timing, "batches": tuple(_timed_batch(each) for each in timing["batches"])})


def _timed_batch(batch: Mapping[str, Any]) -> TimedBatch:
    rounds = {
        name: {decoder: tuple(values) for decoder, values in batch[name].items()}
        for name in ("latency_seconds", "first_token_seconds")
    }
    return TimedBatch(**{**batch, **rounds})


def _failed(folder: Path, planned: CellRecord, found: Found, stages: dict[str, StageRecord]) -> CellRecord:
    known = next((reason for reason in FAILURE_REASONS if reason == found.failure), None)
    stages_of = _finished_stages(folder, cell_folder(folder, planned.cell), stages)
    return replace(planned, state="failed", reason=known, message=found.reason, stages=stages_of)


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


def _planned(cell: Mapping[str, Any]) -> CellRecord:
    return CellRecord(
        cell=cell["cell"],
        task=cell["task"],
        method=cell["method"],
        family=cell["family"],
        budget_completions=cell["budget_completions"],
        seed=cell["seed"],
        state="pending",
        feedback=feedback_of(cell.get("settings", cell)),
    )


def task_from_plain(info: Mapping[str, Any]) -> TaskInfo:
    """Return what `writing.task_plain` made plain."""
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
        judged_on=info["judged_on"],
        contextual=bool(info.get("contextual", False)),
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
