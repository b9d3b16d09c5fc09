"""Live progress on stderr: a table that stays in place on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Self, TextIO

from paretune.core.printable import printable, write_line

RATE_SECONDS = 30.0  # the speed shown is that of the last half minute
ESTIMATE_SECONDS = 20.0  # measured before time left is shown: workers start one by one, answers come in bursts
LINE_SECONDS = 10.0  # between two plain lines


@dataclass(frozen=True)
class Running:
    """A job under way.

    Attributes:
        name: Its name.
        kind: `training`, or the name of a measurement.
        cells: Names of the cells that it is done for.
        seconds: Since it began.
        silent_seconds: Since it was last heard of.
        completions: Made so far.
        planned_completions: The most that it is to make.
    """

    name: str
    kind: str
    cells: tuple[str, ...]
    seconds: float
    silent_seconds: float
    completions: int
    planned_completions: int


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        cells: Cells of the study.
        done: Cells finished.
        running: Cells something is being done for.
        failed: Cells failed.
        completions: Completions made by this call, training and evaluation.
        total_completions: The most that this call is to make, as planned; it does not change.
        rate: Completions per second over the last half minute; None before the first.
        seconds_left: Estimate; None before enough was measured for one.
        doing: What is going on, for people.
        not_needed: Planned completions that nobody had to make, such as for preferences answered by the same policy.
        noun: What cells are called: those of a sweep over settings have another name.
        mean_rate: Completions per second since the first of this call.
        jobs: What is under way.
    """

    cells: int
    done: int
    running: int
    failed: int
    completions: int
    total_completions: int
    rate: float | None
    seconds_left: float | None
    doing: str
    not_needed: int = 0
    noun: str = "cells"
    mean_rate: float | None = None
    jobs: tuple[Running, ...] = ()

    def line(self) -> str:
        """Return one line of text."""
        parts = [f"{self.noun} {self.done}/{self.cells} done", f"{self.running} running"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        parts.append(f"{self.completions:,} of at most {self.total_completions:,} completions")
        if self.rate is not None:
            parts.append(f"{self.rate:,.0f} samples/s")
        left = "time left not measured yet" if self.seconds_left is None else f"{clock_text(self.seconds_left)} left"
        parts.append(left)
        return f"{', '.join(parts)} | {self.doing}"


def clock_text(seconds: float) -> str:
    """Return seconds as `m:ss`.

    Example:
        >>> clock_text(125)
        '2:05'
    """
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"


class Meter:
    """Turns counts into a speed over the last half minute."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque()
        self.total = 0
        self._started: float | None = None

    def add(self, completions: int, now: float) -> None:
        """Count completions."""
        self._started = now if self._started is None else self._started
        self.total += completions
        self._points.append((now, self.total))
        while now - self._points[0][0] > RATE_SECONDS:
            self._points.popleft()

    def rate(self) -> float | None:
        """Return completions per second, or None while too little is known."""
        if len(self._points) < 2:
            return None
        (start, first), (end, last) = self._points[0], self._points[-1]
        return (last - first) / (end - start) if end > start else None

    def mean_rate(self, now: float) -> float | None:
        """Return completions per second since the first were counted, or None before any time has passed."""
        return self.total / (now - self._started) if self._started is not None and now > self._started else None

    def seconds_left(self, completions: int) -> float | None:
        """Return how long so many completions will take, or None while too little is known."""
        rate = self.rate()
        if not rate or self._started is None or self._points[-1][0] - self._started < ESTIMATE_SECONDS:
            return None
        return completions / rate


class Display:
    """Shows progress while it is entered; this one shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def show(self, progress: Progress) -> None:
        """Show where the run stands."""

    def say(self, text: str) -> None:
        """Show a message that stays."""


class PlainLines(Display):
    """Prints a line every ten seconds, for logs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = -LINE_SECONDS
        self._started = time.monotonic()

    def show(self, progress: Progress) -> None:
        """Print a line when the last one is old enough."""
        now = time.monotonic()
        if now - self._shown >= LINE_SECONDS:
            self._shown = now
            self.say(f"[{clock_text(now - self._started)}] {progress.line()}")

    def say(self, text: str) -> None:
        """Print a line."""
        write_line(printable(text), self._stream)


class LiveTable(Display):
    """Keeps a bar and one line of figures in place on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        columns = BarColumn(bar_width=30), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
        self._bar: Any = Bar(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task("starting", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def show(self, progress: Progress) -> None:
        """Redraw."""
        made, total = progress.completions + progress.not_needed, max(progress.total_completions, 1)
        self._bar.update(self._task, description=printable(progress.line()), completed=made, total=total)

    def say(self, text: str) -> None:
        """Print above the bar."""
        self._bar.console.print(printable(text), markup=False, highlight=False)


def display(wanted: bool = True) -> Display:
    """Return what suits stderr: a live table on a terminal, plain lines elsewhere, nothing where unwanted."""
    if not wanted:
        return Display()
    return LiveTable() if sys.stderr.isatty() else PlainLines(sys.stderr)
