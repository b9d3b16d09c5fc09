"""Who does what is missing, in which order: stages in populations, evaluations, timing; in worker processes."""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Literal

from paretune.benchmark.environment import environment
from paretune.benchmark.estimates import evaluated_completions, missing_completions
from paretune.benchmark.executors import STOP_SECONDS, Worker, worker_threads
from paretune.benchmark.folder import log_path
from paretune.benchmark.groups import Group, begin_group, begun_groups, needs, populations, read_spent, trajectories
from paretune.benchmark.keys import reference_key
from paretune.benchmark.planned import Plan, PlannedCell
from paretune.benchmark.progress import Display, Meter, Progress
from paretune.benchmark.tuning import about, mark_tuning_failed, why_untuned
from paretune.core.digests import digest
from paretune.core.task import Task
from paretune.core.user_folders import looked_in
from paretune.records.files import DONE, FAILED, is_done, mark_failed, read_json, write_json
from paretune.records.layout import cell_folder, stage_folder
from paretune.records.reading import read_timings
from paretune.records.study import CellRecord, FailureReason, TimingRecord
from paretune.records.writing import write_cell, write_timings

JOBS = {  # what workers are asked to do
    "train": "paretune.benchmark.stages:run_stages",
    "evaluate": "paretune.benchmark.evaluating:evaluate_cell",
    "score": "paretune.benchmark.tuning:score_cell",
    "reference": "paretune.benchmark.evaluating:evaluate_reference",
    "time": "paretune.benchmark.timing:time_methods",
}
EVERYBODYS = ("task_error", "model_error")  # reasons that no member of a population is alone with
POLL_SECONDS = 0.5

JobKind = Literal["train", "evaluate", "score", "reference", "time"]


@dataclass
class Job:
    """Something a worker is doing.

    Attributes:
        kind: What it is.
        subject: A `Group`, a `PlannedCell`, (task, seed), or a list of cells to time.
        payload: What the worker is told.
        cells: Names of the cells it is done for.
        left: Completions the plan counts for it that have not been heard of.
    """

    kind: JobKind
    subject: Any
    payload: Mapping[str, object]
    cells: frozenset[str] = field(default_factory=frozenset)
    left: int = 0


def cell_record(cell: PlannedCell) -> CellRecord:
    """Return what names a cell, before anything has run."""
    return CellRecord(
        cell.name, cell.task.name, cell.entry.label, cell.entry.method.family, cell.budget, cell.seed, "pending"
    )


class Scheduler:
    """One call of `run`, or its sweep: what is missing, who works on it, and what has failed."""

    def __init__(self, planned: Plan, lock: int, shown: Display) -> None:
        self.plan = planned
        self.tuning = any(cell.point is not None for cell in planned.cells)
        self.study = planned.study
        self.root = planned.folder
        self.display = shown
        self.lock = lock
        self.threads = worker_threads(planned.workers)
        self.workers: list[Worker] = []
        self.finished = {each.key for each in planned.stages if each.state == "finished"}
        self.cells = [cell for cell in planned.cells if cell.state != "finished" and cell.settled]
        wanted = {key for cell in self.cells for key in cell.stages}
        self.waiting = {each.key: each for each in planned.stages if each.state != "finished" and each.key in wanted}
        self.failed_stages: dict[str, tuple[FailureReason, str]] = {}
        self.groups: list[Group] = []
        self.references = list(planned.references)
        self.reference_retried: set[tuple[str, int]] = set()
        self.done_cells = planned.count("finished")
        self.failed_cells: list[str] = []
        self.problems: list[str] = []
        self.meter = Meter()
        self.not_needed = 0  # completions planned that nobody had to make: after a checkpoint, or answered alike
        self.stop = False

    def execute(self) -> list[str]:
        """Do all that is missing; return what failed beyond cells."""
        self.groups = begun_groups(self.root, self.waiting, keep_others=self.tuning)
        for group in self.groups:
            for key in group.keys:
                self.waiting.pop(key, None)
        for cell in self.plan.cells:
            if not cell.settled and self.plan.sweep is not None:
                why = why_untuned(self.root, self.plan.sweep.cells, cell.task.name, cell.entry.label)
                self._fail_cell(cell, *why)
        if not (self.cells or self.references or self._untimed()):
            return self.problems
        with self.display, self._signals():
            try:
                self._loop()
                if not self.stop:
                    self._time_methods()
            finally:
                self._dismiss()
        if self.stop:
            raise KeyboardInterrupt
        return self.problems

    def _next(self) -> Job | None:
        """Return the next thing to do, or None when everything left waits for a running job."""
        for group in self.groups:
            if all(needs(self.plan.by_key[key]) <= self.finished for key in group.keys if key in self.plan.by_key):
                self.groups.remove(group)
                return self._train_job(group)
        ready = [each for each in self.waiting.values() if needs(each) <= self.finished]
        if ready:
            for each in ready:
                del self.waiting[each.key]
            self.groups += [begin_group(self.root, part) for part in populations(ready, self.plan.workers)]
            return self._next()
        for cell in self.cells:
            if all(key in self.finished for key in cell.stages):
                self.cells.remove(cell)
                expected = evaluated_completions(self.study, cell)
                kind: JobKind = "evaluate" if cell.point is None else "score"
                return Job(kind, cell, self._cell_payload(cell, kind), frozenset([cell.name]), expected)
        if self.references:
            task_name, seed = self.references.pop(0)
            task = next(task for task in self.study.tasks if task.name == task_name)
            preferences, _ = self.study.preferences(task)
            key = reference_key(task.instance(seed), self.study.decoding(), preferences)
            payload = {
                **self._payload("reference", task, seed),
                "decoding": self.study.decoding(),
                "preferences": preferences.tolist(),
                "key": key,
            }
            return Job("reference", (task_name, seed), payload)
        return None

    def _train_job(self, group: Group) -> Job:
        cells = {name for key in group.keys if key in self.plan.by_key for name in self.plan.by_key[key].cells}
        payload = {**self._payload("train", group.task, group.seed), "group": str(group.folder.resolve())}
        missing = [self.plan.by_key[key] for key in group.keys if key in self.plan.by_key]
        return Job("train", group, payload, frozenset(cells), missing_completions(missing))

    def _payload(self, kind: JobKind, task: Task, seed: int) -> dict[str, object]:
        return {
            "kind": "job",
            "run": JOBS[kind],
            "folder": str(self.root.resolve()),
            "imports": [os.path.abspath(entry) for entry in sys.path],
            "folders": [str(folder) for folder in looked_in()],
            "task": task.source,
            "seed": seed,
            "task_key": digest(task.instance(seed).training_key()),
        }

    def _cell_payload(self, cell: PlannedCell, kind: JobKind) -> dict[str, object]:
        return {
            **self._payload(kind, cell.task, cell.seed),
            "cell": cell.name,
            "label": cell.entry.label,
            "source": cell.entry.source,
            "settings": dict(cell.entry.settings),
            "budget": cell.budget,
            "training_preferences": cell.training_preferences.tolist(),
            "preferences": cell.preferences.tolist(),
            "decoding": self.study.decoding(),
            "training_key": cell.training_key,
            "evaluation_key": cell.evaluation_key,
            "made_of": dict(cell.made_of),
            **({} if cell.point is None else {"about": about(cell)}),
        }

    def _loop(self) -> None:
        while not self.stop:
            idle = [worker for worker in self.workers if worker.job is None]
            while (idle or len(self.workers) < self.plan.workers) and (job := self._next()):
                worker = idle.pop() if idle else self._hire()
                worker.give(job, job.payload)
            self._show()
            if not any(worker.job for worker in self.workers):
                self._fail_unreachable()
                return
            self._hear()

    def _hire(self) -> Worker:
        taken = {worker.number for worker in self.workers}
        number = next(number for number in range(len(taken) + 1) if number not in taken)
        worker = Worker(number, self.threads, log_path(self.root, number), (self.lock,))
        self.workers.append(worker)
        return worker

    def _hear(self) -> None:
        with selectors.DefaultSelector() as selector:
            for worker in self.workers:
                selector.register(worker.connection, selectors.EVENT_READ, worker)
            ready = [key.data for key, _ in selector.select(timeout=POLL_SECONDS)]
        for worker in ready:
            messages = worker.receive()
            if messages is None:
                self._bury(worker)
                continue
            for message in messages:
                self._handle(worker, message)

    def _handle(self, worker: Worker, message: Mapping[str, Any]) -> None:
        if message["kind"] == "progress":
            completions = int(message["completions"])
            self.meter.add(completions, time.monotonic())
            worker.job.left -= completions
        elif message["kind"] == "sealed":
            self.finished.add(str(message["key"]))
        elif message["kind"] in ("done", "failed", "stopped"):
            job, worker.job = worker.job, None
            if message["kind"] == "done":
                self.not_needed += max(0, job.left)
                self._succeed(job, message["result"])
            elif message["kind"] == "failed":
                self._fail(job, message["reason"], message["message"])

    def _bury(self, worker: Worker) -> None:
        """Take note of a worker that died; another takes its place when there is work."""
        reason, message = worker.cause_of_death()
        self.workers.remove(worker)
        if worker.job is not None:
            self._fail(worker.job, reason, message)

    def _dismiss(self) -> None:
        busy = [worker for worker in self.workers if worker.job is not None]
        for worker in busy:
            worker.ask_to_stop()
        deadline = time.monotonic() + STOP_SECONDS
        for worker in self.workers:
            worker.close(patience=max(0.0, deadline - time.monotonic()))
        self.workers.clear()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn the first SIGINT or SIGTERM into an orderly stop; the second one ends the process."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may set handlers
            return

        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        def request_stop(number: int, frame: FrameType | None) -> None:
            self.stop = True
            restore()
            self.display.say("stopping: workers finish their update and keep their state")

        for number in before:
            signal.signal(number, request_stop)
        try:
            yield
        finally:
            restore()

    def _succeed(self, job: Job, result: Mapping[str, Any]) -> None:
        if job.kind == "train":
            self.finished.update(job.subject.keys)
        elif job.kind in ("evaluate", "score"):
            self.done_cells += 1
        elif job.kind == "time":
            self._keep_timings(job.subject, result["timings"])

    def _fail(self, job: Job, reason: FailureReason, message: str) -> None:
        if job.kind == "train":
            self._fail_group(job.subject, reason, message)
        elif job.kind == "evaluate" and job.subject.rescored:  # its completions are there: it stays as it was
            self.problems.append(f"{job.subject.name} could not be scored again ({reason}): {message}")
            self.display.say(self.problems[-1])
        elif job.kind in ("evaluate", "score"):
            self._fail_cell(job.subject, reason, f"{'evaluation' if job.kind == 'evaluate' else 'scoring'}: {message}")
        elif job.kind == "reference" and job.subject not in self.reference_retried:
            self.reference_retried.add(job.subject)
            self.references.append(job.subject)
        else:
            noun = "base model's evaluation" if job.kind == "reference" else "timing"
            self.problems.append(f"{noun} failed ({reason}): {message}")
            self.display.say(self.problems[-1])

    def _fail_group(self, group: Group, reason: FailureReason, message: str) -> None:
        """Try each trajectory of a failed population alone, once, so that only the guilty one fails."""
        left = []
        for key in group.keys:
            if is_done(stage_folder(self.root, key)):
                self.finished.add(key)
            elif key in self.plan.by_key:
                left.append(self.plan.by_key[key])
        spent = read_spent(group.folder)["spent"]
        by_trajectory = trajectories(left)
        if group.alone or len(by_trajectory) <= 1 or reason in EVERYBODYS:
            shutil.rmtree(group.folder / "checkpoint", ignore_errors=True)  # the next call starts it afresh
            for each in left:
                member = ", ".join(f"{name}={value}" for name, value in each.stage.member.items())
                self.failed_stages[each.key] = (reason, f"{each.stage.kind} ({member}): {message}")
            return
        # what failed is told once, of the cells that fail for it; where each goes well alone, the log has it
        self.display.say(f"a population of {len(by_trajectory)} failed ({reason}), trying each alone")
        for trajectory, members in by_trajectory.items():
            own = {trajectory: spent[trajectory]} if trajectory in spent else {}
            self.groups.append(begin_group(self.root, members, alone=True, spent=own))
        shutil.rmtree(group.folder)

    def _fail_unreachable(self) -> None:
        """Fail the cells that wait for a failed stage."""
        for cell in self.cells:
            causes = [self.failed_stages[key] for key in cell.stages if key in self.failed_stages]
            reason, message = causes[0] if causes else ("method_error", "its stages could not be started")
            self._fail_cell(cell, reason, message)
        self.cells.clear()

    def _fail_cell(self, cell: PlannedCell, reason: FailureReason, message: str) -> None:
        if cell.point is None:
            folder, record = cell_folder(self.root, cell.name), cell_record(cell)
            (folder / DONE).unlink(missing_ok=True)
            keys = cell.training_key, cell.evaluation_key
            write_cell(self.root, record, *keys, cell.stages, environment(self.threads), cell.made_of)
            mark_failed(folder, reason, message)
            why = f"runs/{cell.name}/{FAILED} says why"  # so does the summary, which lists no trials of a sweep
        else:
            mark_tuning_failed(self.root, cell, reason, message)
            why = message
        self.failed_cells.append(cell.name)
        self.display.say(f"{cell.name} failed ({reason}): {why}")

    def _untimed(self) -> dict[str, list[PlannedCell]]:
        """Return for each task the cells whose policies are still to be timed: first seed and budget of a method."""
        known = self._timing_keys()
        untimed: dict[str, list[PlannedCell]] = {}
        seen: set[tuple[str, str]] = set()
        for cell in self.plan.cells:
            name = (cell.task.name, cell.entry.label)
            if name in seen or cell.name in self.failed_cells or self.tuning:
                continue
            seen.add(name)
            if known.get(" ".join(name)) != cell.training_key:
                untimed.setdefault(cell.task.name, []).append(cell)
        return untimed

    def _timing_keys(self) -> dict[str, str]:
        path = self.root / "timing.keys.json"
        return dict(read_json(path)) if path.exists() else {}

    def _time_methods(self) -> None:
        for cells in self._untimed().values():
            worker = self.workers[0] if self.workers else self._hire()
            payload = {**self._payload("time", cells[0].task, cells[0].seed), "cells": []}
            payload["cells"] = [self._cell_payload(cell, "time") for cell in cells]
            worker.give(Job("time", cells, payload), payload)
            while worker.job is not None and worker in self.workers and not self.stop:
                self._show()
                self._hear()

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
        kept = [timing for timing in read_timings(self.root) if (timing.task, timing.method) not in replaced]
        write_timings(self.root, [*kept, *new])
        keys = {f"{cell.task.name} {cell.entry.label}": cell.training_key for cell in cells}
        write_json(self.root / "timing.keys.json", {**self._timing_keys(), **keys})

    def _show(self) -> None:
        total = self.plan.completions_to_train + self.plan.completions_to_evaluate
        left = max(0, total - self.not_needed - self.meter.total)
        running: set[str] = set()
        kinds: dict[str, int] = {}
        for worker in self.workers:
            if worker.job is not None:
                running |= worker.job.cells
                kinds[worker.job.kind] = kinds.get(worker.job.kind, 0) + 1
        words = {
            "train": "training", "evaluate": "evaluating", "score": "scoring", "reference": "evaluating the base",
            "time": "timing",
        }  # fmt: skip
        self.display.show(
            Progress(
                cells=len(self.plan.cells),
                done=self.done_cells,
                running=len(running),
                failed=len(self.failed_cells),
                completions=self.meter.total,
                total_completions=total,
                rate=self.meter.rate(),
                seconds_left=self.meter.seconds_left(left),
                doing=", ".join(f"{words[kind]} x{count}" for kind, count in kinds.items()) or "finishing",
                not_needed=self.not_needed,
                noun="tuning cells" if self.tuning else "cells",
            )
        )
