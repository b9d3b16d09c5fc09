"""What a call of `run` has to do: stages in populations, evaluations, timing; and what becomes of each when it ends."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from paretune.benchmark.environment import environment
from paretune.benchmark.estimates import evaluated_completions, missing_completions
from paretune.benchmark.executors import Job
from paretune.benchmark.executors.cores import worker_threads
from paretune.benchmark.groups import Group, begin_group, begun_groups, needs, populations, trajectories
from paretune.benchmark.keys import reference_key
from paretune.benchmark.planned import Plan, PlannedCell, PlannedStage
from paretune.benchmark.tuning import about, mark_tuning_failed, why_untuned
from paretune.core.digests import digest
from paretune.core.task import Task
from paretune.records.files import DONE, FAILED, is_done, mark_failed, read_json, write_json
from paretune.records.layout import cell_folder, stage_folder
from paretune.records.reading import read_timings
from paretune.records.study import CellRecord, FailureReason, TimingRecord
from paretune.records.writing import write_cell, write_timings

JOBS = {  # what is asked for
    "train": "paretune.benchmark.stages:run_stages",
    "evaluate": "paretune.benchmark.evaluating:evaluate_cell",
    "score": "paretune.benchmark.tuning:score_cell",
    "reference": "paretune.benchmark.evaluating:evaluate_reference",
    "time": "paretune.benchmark.timing:time_methods",
}
NOUNS = {"evaluate": "evaluation", "score": "scoring", "reference": "base model's evaluation", "time": "timing"}
EVERYBODYS = ("task_error", "model_error")  # reasons that no member of a population is alone with

JobKind = Literal["train", "evaluate", "score", "reference", "time"]


@dataclass
class PlannedJob:
    """A job, and what it is for.

    Attributes:
        kind: What it is.
        job: What the executor is given.
        subject: A `Group`, a `PlannedCell`, or (task, seed).
        cells: Names of the cells it is done for.
        left: Completions the plan counts for it that have not been heard of.
    """

    kind: JobKind
    job: Job
    subject: Any
    cells: frozenset[str] = field(default_factory=frozenset)
    left: int = 0


def cell_record(cell: PlannedCell) -> CellRecord:
    """Return what names a cell, before anything has run."""
    return CellRecord(
        cell.name, cell.task.name, cell.entry.label, cell.entry.method.family, cell.budget, cell.seed, "pending"
    )


class Work:
    """What is missing of a study, or of its sweep, and what has failed.

    Attributes:
        problems: What failed beyond cells.
        failed_cells: Names of the cells that failed in this call.
        done_cells: How many cells are finished.
        tuning: Whether these are the trials of a sweep.
    """

    def __init__(self, planned: Plan, say: Callable[[str], None]) -> None:
        self.problems: list[str] = []
        self.failed_cells: list[str] = []
        self.done_cells = planned.count("finished")
        self.tuning = any(cell.point is not None for cell in planned.cells)
        self._say = say
        self._plan = planned
        self._study = planned.study
        self._root = planned.folder
        self._finished = {each.key for each in planned.stages if each.state == "finished"}
        self._failed_stages: dict[str, tuple[FailureReason, str]] = {}
        self._again: list[PlannedJob] = []  # what ran them died
        self._tried_again: set[str] = set()
        self._timed: set[str] = set()
        self._references = list(planned.references)
        self._cells = [cell for cell in planned.cells if cell.state != "finished" and cell.settled]
        wanted = {key for cell in self._cells for key in cell.stages}
        waiting = {each.key: each for each in planned.stages if each.state != "finished" and each.key in wanted}
        self._groups = begun_groups(self._root, waiting, keep_others=self.tuning)
        begun = {key for group in self._groups for key in group.keys}
        self._waiting = {key: each for key, each in waiting.items() if key not in begun}
        for cell in planned.cells:
            if not cell.settled and planned.sweep is not None:
                why = why_untuned(self._root, planned.sweep.cells, cell.task.name, cell.entry.label)
                self._fail_cell(cell, *why)

    def is_empty(self) -> bool:
        """Return whether nothing is to be done."""
        return not (self._cells or self._references or self._untimed())

    def next(self, busy: bool) -> PlannedJob | None:
        """Return the next job, or None where everything left waits for a job under way, or nothing is left.

        Args:
            busy: Whether a job is under way; timing begins when none is.
        """
        if self._again:
            return self._again.pop()
        for group in self._groups:
            if all(needs(self._plan.by_key[key]) <= self._finished for key in group.keys if key in self._plan.by_key):
                self._groups.remove(group)
                return self._train_job(group)
        ready = [each for each in self._waiting.values() if needs(each) <= self._finished]
        if ready:
            for each in ready:
                del self._waiting[each.key]
            self._groups += [begin_group(self._root, part) for part in populations(ready, self._plan.workers)]
            return self.next(busy)
        for cell in self._cells:
            if all(key in self._finished for key in cell.stages):
                self._cells.remove(cell)
                expected = evaluated_completions(self._study, cell)
                kind: JobKind = "evaluate" if cell.point is None else "score"
                return self._cell_job(kind, cell, self._cell_payload(cell), expected)
        if self._references:
            return self._reference_job(*self._references.pop(0))
        if busy:
            return None
        self._fail_unreachable()
        for cell in self._untimed():
            if _timed_as(cell) not in self._timed:
                self._timed.add(_timed_as(cell))
                payload = {**self._payload(cell.task, cell.seed), "cells": [self._cell_payload(cell)]}
                return self._cell_job("time", cell, payload)
        return None

    def _train_job(self, group: Group) -> PlannedJob:
        missing = [self._plan.by_key[key] for key in group.keys if key in self._plan.by_key]
        cells = frozenset(name for each in missing for name in each.cells)
        payload = {**self._payload(group.task, group.seed), "group": str(group.folder.resolve())}
        job = Job(f"train {group.folder.name}", JOBS["train"], payload)
        return PlannedJob("train", job, group, cells, missing_completions(missing))

    def _reference_job(self, task_name: str, seed: int) -> PlannedJob:
        task = next(task for task in self._study.tasks if task.name == task_name)
        preferences, _ = self._study.preferences(task)
        payload = {
            **self._payload(task, seed),
            "decoding": self._study.decoding(),
            "preferences": preferences.tolist(),
            "key": reference_key(task.instance(seed), self._study.decoding(), preferences),
        }
        job = Job(f"reference {task_name} {seed}", JOBS["reference"], payload)
        return PlannedJob("reference", job, (task_name, seed))

    def _cell_job(self, kind: JobKind, cell: PlannedCell, payload: Mapping[str, Any], left: int = 0) -> PlannedJob:
        cells = frozenset() if kind == "time" else frozenset([cell.name])
        return PlannedJob(kind, Job(f"{kind} {cell.name}", JOBS[kind], payload), cell, cells, left)

    def _payload(self, task: Task, seed: int) -> dict[str, object]:
        return {
            "folder": str(self._root.resolve()),
            "imports": [os.path.abspath(entry) for entry in sys.path],
            "task": task.source,
            "seed": seed,
            "task_key": digest(task.instance(seed).training_key()),
        }

    def _cell_payload(self, cell: PlannedCell) -> dict[str, object]:
        return {
            **self._payload(cell.task, cell.seed),
            "cell": cell.name,
            "label": cell.entry.label,
            "source": cell.entry.source,
            "settings": dict(cell.entry.settings),
            "budget": cell.budget,
            "told": cell.told.tolist(),
            "preferences": cell.preferences.tolist(),
            "decoding": self._study.decoding(),
            "training_key": cell.training_key,
            "evaluation_key": cell.evaluation_key,
            "made_of": dict(cell.made_of),
            **({} if cell.point is None else {"about": about(cell)}),
        }

    def sealed(self, key: str) -> None:
        """Take note of a stage that a job has finished before its end."""
        self._finished.add(key)

    def succeeded(self, planned: PlannedJob, result: Mapping[str, Any]) -> None:
        """Take note of a job that is done."""
        if planned.kind == "train":
            self._finished.update(planned.subject.keys)
        elif planned.kind in ("evaluate", "score"):
            self.done_cells += 1
        elif planned.kind == "time":
            self._keep_timings([planned.subject], result["timings"])

    def failed(self, planned: PlannedJob, reason: FailureReason, message: str, died: bool) -> None:
        """Take note of a job that failed; where what ran it `died`, it is tried once more, alone in its population."""
        kind, subject = planned.kind, planned.subject
        if kind == "train" and not subject.alone and reason not in EVERYBODYS and len(self._ways(subject)) > 1:
            self._try_each_alone(subject, reason)
        elif died and planned.job.name not in self._tried_again and not (kind == "train" and subject.alone):
            self._tried_again.add(planned.job.name)
            self._again.append(planned)
            self._say(f"{planned.job.name} is tried again ({reason}): {message}")
        elif kind == "train":
            self._fail_group(subject, reason, message)
        elif kind in ("evaluate", "score") and not subject.rescored:
            self._fail_cell(subject, reason, f"{NOUNS[kind]}: {message}")
        else:
            what = "" if kind == "reference" else f" of {subject.name}"
            if kind == "evaluate":  # its completions are there: it stays as it was
                self.problems.append(f"{subject.name} could not be scored again ({reason}): {message}")
            else:
                self.problems.append(f"{NOUNS[kind]}{what} failed ({reason}): {message}")
            self._say(self.problems[-1])

    def _ways(self, group: Group) -> dict[str, list[PlannedStage]]:
        """Return what is left of a population, by trajectory."""
        self._finished |= {key for key in group.keys if is_done(stage_folder(self._root, key))}
        left = [key for key in group.keys if key not in self._finished and key in self._plan.by_key]
        return trajectories([self._plan.by_key[key] for key in left])

    def _try_each_alone(self, group: Group, reason: FailureReason) -> None:
        """Try each trajectory of a failed population alone, once, so that only the guilty one fails."""
        spent_file = group.folder / "spent.json"
        spent = read_json(spent_file)["spent"] if spent_file.exists() else {}
        ways = self._ways(group)
        # what failed is told once, of the cells that fail for it; where each goes well alone, the log has it
        self._say(f"a population of {len(ways)} failed ({reason}), trying each alone")
        for trajectory, members in ways.items():
            own = {trajectory: spent[trajectory]} if trajectory in spent else {}
            self._groups.append(begin_group(self._root, members, alone=True, spent=own))
        shutil.rmtree(group.folder)

    def _fail_group(self, group: Group, reason: FailureReason, message: str) -> None:
        shutil.rmtree(group.folder / "checkpoint", ignore_errors=True)  # the next call starts it afresh
        for members in self._ways(group).values():
            for each in members:
                member = ", ".join(f"{name}={value}" for name, value in each.stage.member.items())
                self._failed_stages[each.key] = (reason, f"{each.stage.kind} ({member}): {message}")

    def _fail_unreachable(self) -> None:
        """Fail the cells that wait for a failed stage."""
        for cell in self._cells:
            causes = [self._failed_stages[key] for key in cell.stages if key in self._failed_stages]
            reason, message = causes[0] if causes else ("method_error", "its stages could not be started")
            self._fail_cell(cell, reason, message)
        self._cells.clear()

    def _fail_cell(self, cell: PlannedCell, reason: FailureReason, message: str) -> None:
        if cell.point is None:
            folder, record = cell_folder(self._root, cell.name), cell_record(cell)
            (folder / DONE).unlink(missing_ok=True)
            keys = cell.training_key, cell.evaluation_key
            write_cell(
                self._root, record, *keys, cell.stages, environment(worker_threads(self._plan.workers)), cell.made_of
            )
            mark_failed(folder, reason, message)
            why = f"runs/{cell.name}/{FAILED} says why"  # so does the summary, which lists no trials of a sweep
        else:
            mark_tuning_failed(self._root, cell, reason, message)
            why = message
        self.failed_cells.append(cell.name)
        self._say(f"{cell.name} failed ({reason}): {why}")

    def _untimed(self) -> list[PlannedCell]:
        """Return the cells whose policies are still to be timed: of a method on a task, the first not failed."""
        known = self._timing_keys()
        first: dict[str, PlannedCell] = {}
        for cell in self._plan.cells:
            if not self.tuning and cell.name not in self.failed_cells:
                first.setdefault(_timed_as(cell), cell)
        return [cell for name, cell in first.items() if known.get(name) != cell.training_key]

    def _timing_keys(self) -> dict[str, str]:
        path = self._root / "timing.keys.json"
        return dict(read_json(path)) if path.exists() else {}

    def _keep_timings(self, cells: Sequence[PlannedCell], timings: Sequence[Mapping[str, Any]]) -> None:
        new = [
            TimingRecord(
                **{
                    **timing,
                    "tokens_per_second": tuple(timing["tokens_per_second"]),
                    "base_tokens_per_second": tuple(timing["base_tokens_per_second"]),
                }
            )
            for timing in timings
        ]
        replaced = {(timing.task, timing.method) for timing in new}
        kept = [timing for timing in read_timings(self._root) if (timing.task, timing.method) not in replaced]
        write_timings(self._root, [*kept, *new])
        keys = {_timed_as(cell): cell.training_key for cell in cells}
        write_json(self._root / "timing.keys.json", {**self._timing_keys(), **keys})


def _timed_as(cell: PlannedCell) -> str:
    return f"{cell.task.name} {cell.entry.label}"
