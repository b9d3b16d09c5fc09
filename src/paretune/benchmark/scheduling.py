"""Doing what is missing: an executor is given jobs, and what it tells of them is written down and shown."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from paretune.benchmark.planned import Plan
from paretune.benchmark.progress import Display, Meter, Progress, Running, clock_text
from paretune.benchmark.work import PlannedJob, Work
from paretune.executors import LAST, Event, Executor

POLL_SECONDS = 0.5
SILENT_SECONDS = 300.0  # of a job without progress, before it is said
BROKEN_SECONDS = 60.0  # for an executor that has raised to tell of its jobs' ends: more than a worker has to stop


class Scheduler:
    """One call of `run`, or its sweep."""

    def __init__(self, planned: Plan, executor: Executor, shown: Display) -> None:
        self.plan = planned
        self.executor = executor
        self.display = shown
        self.running: dict[str, PlannedJob] = {}
        self.heard: dict[str, float] = {}  # when each of them was last heard of, by the monotonic clock
        self.said: dict[str, float] = {}  # when it was said of one that it is silent
        self.begun: dict[str, tuple[float, int]] = {}  # when each of them began, and what was planned for it
        self.meter = Meter()
        self.not_needed = 0  # completions planned that nobody had to make: after a checkpoint, or answered alike
        self.stopping = False

    def execute(self) -> list[str]:
        """Do all that is missing; return what failed beyond cells.

        Raises:
            KeyboardInterrupt: After SIGINT or SIGTERM, once all jobs have stopped.
            OSError: If the machine cannot run one more job, once all jobs have stopped.
        """
        work = Work(self.plan, self.display.say)
        if not work.is_empty():
            with self.display, self._signals():
                patience = math.inf
                try:
                    self._loop(work)
                except BaseException:
                    patience = BROKEN_SECONDS
                    raise
                finally:
                    self._end(work, patience)
        if self.stopping:
            raise KeyboardInterrupt
        return work.problems

    def _loop(self, work: Work) -> None:
        while not self.stopping:
            while len(self.running) < self.plan.workers and (planned := work.next(busy=bool(self.running))):
                self.executor.submit(planned.job)  # first: of one that was not taken, no end would ever be told
                self.running[planned.job.name] = planned
                self.heard[planned.job.name] = time.monotonic()
                self.begun[planned.job.name] = time.monotonic(), planned.left
            self._show(work)
            if not self.running:
                return
            for event in self.executor.events(POLL_SECONDS):
                self._handle(work, event)
            self._say_silent()

    def _end(self, work: Work, patience: float) -> None:
        """Leave nothing running; what fails while it is stopped is tried by the next call."""
        self.executor.stop()
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            for event in self.executor.events(POLL_SECONDS):
                if event.kind in LAST:
                    planned = self.running.pop(event.job)
                    if event.kind == "done":
                        work.succeeded(planned)
            if not self.running:
                return

    def _handle(self, work: Work, event: Event) -> None:
        planned, data = self.running[event.job], event.data
        self.heard[event.job] = time.monotonic()
        if event.kind in LAST:
            del self.running[event.job]
        if event.kind == "progress":
            completions = int(data["completions"])
            self.meter.add(completions, time.monotonic())
            planned.left -= completions
        elif event.kind == "sealed":
            work.sealed(str(data["key"]))
        elif event.kind == "done":
            self.not_needed += max(0, planned.left)
            work.succeeded(planned)
        elif event.kind == "failed":
            work.failed(planned, data["reason"], data["message"], data["died"])

    def _say_silent(self) -> None:
        """Say, each time it has gone on so long, that a job makes no progress; only people know whether it should."""
        now = time.monotonic()
        for name in self.running:
            if now - max(self.heard[name], self.said.get(name, 0.0)) >= SILENT_SECONDS:
                self.said[name] = now
                self.display.say(f"{name} has made no progress for {clock_text(SILENT_SECONDS)}; Ctrl-C stops the run")

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
            self.stopping = True
            self.executor.stop()
            restore()
            self.display.say("stopping: workers finish their update and keep their state")

        for number in before:
            signal.signal(number, request_stop)
        try:
            yield
        finally:
            restore()

    def _show(self, work: Work) -> None:
        total = self.plan.completions_to_train + self.plan.completions_to_evaluate
        left = max(0, total - self.not_needed - self.meter.total)
        kinds = Counter(planned.kind for planned in self.running.values())
        running = {cell for planned in self.running.values() for cell in planned.cells}
        doing = ", ".join(f"{doing} x{count}" for doing, count in kinds.items()) or "finishing"
        self.display.show(
            Progress(
                len(self.plan.cells), work.done_cells, len(running), len(work.failed_cells), self.meter.total, total,
                self.meter.rate(), self.meter.seconds_left(left), doing, self.not_needed,
                "tuning cells" if work.tuning else "cells", self.meter.mean_rate(time.monotonic()),
                tuple(self._running(planned) for planned in self.running.values()),
            )
        )  # fmt: skip

    def _running(self, planned: PlannedJob) -> Running:
        name, now = planned.job.name, time.monotonic()
        began, total = self.begun[name]
        heard = now - self.heard[name]
        return Running(
            name, planned.kind, tuple(sorted(planned.cells)), now - began, heard, total - planned.left, total
        )
