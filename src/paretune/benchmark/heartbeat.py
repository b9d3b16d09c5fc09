"""A run's signs of life: a small file in the study's folder that says, every few seconds, what it is doing."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

import psutil

from paretune.benchmark.progress import Display, Progress
from paretune.core.errors import RecordError
from paretune.records.files import SCHEMA_VERSION, write_json

FILE = "progress.json"
NOTE_SECONDS = 5.0  # between two notes; each costs a write that is waited for
State = Literal["running", "ended", "interrupted"]


@dataclass(frozen=True)
class Note:
    """A sign of life.

    Attributes:
        state: What has become of the call.
        process: Number of its process.
        process_began: Time at which that began: numbers of processes are used again.
        host: Name of its machine.
        began: Time at which the call began.
        noted: Time of this note.
        progress: Where the call stands; None before it has said so.
    """

    state: State
    process: int
    process_began: float
    host: str
    began: float
    noted: float
    progress: Progress | None


class Heartbeat(Display):
    """Notes where a run stands, and shows it as another display does."""

    def __init__(self, root: Path, shown: Display) -> None:
        self._root, self._shown = root, shown
        self._began, self._noted = time.time(), -NOTE_SECONDS
        self._progress: Progress | None = None

    def __enter__(self) -> Self:
        self._shown.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._shown.__exit__(*error)

    def show(self, progress: Progress) -> None:
        """Show where the run stands; note it when the last note is old enough."""
        self._shown.show(progress)
        self._progress = progress
        if time.monotonic() - self._noted >= NOTE_SECONDS:
            self.note("running")

    def say(self, text: str) -> None:
        """Show a message that stays."""
        self._shown.say(text)

    def note(self, state: State) -> None:
        """Write down where the run stands; on a full disk nothing is written, and the run goes on."""
        self._noted = time.monotonic()
        process = psutil.Process()
        note = Note(
            state, process.pid, process.create_time(), platform.node(), self._began, time.time(), self._progress
        )  # fmt: skip
        with suppress(RecordError):
            write_json(self._root / FILE, {"schema_version": SCHEMA_VERSION, **asdict(note)})


@contextmanager
def signs_of_life(root: Path, shown: Display) -> Iterator[Heartbeat]:
    """Note the begin and the end of a run, and give what notes the time between.

    Args:
        root: The study's folder, which this process holds.
        shown: What progress is shown with.
    """
    heartbeat = Heartbeat(root, shown)
    heartbeat.note("running")
    state: State = "interrupted"
    try:
        yield heartbeat
        state = "ended"
    finally:
        heartbeat.note(state)


def is_alive(process: int, began: float) -> bool:
    """Whether a process of this machine that began at a time is still there."""
    try:
        found = psutil.Process(process)
        return bool(abs(found.create_time() - began) < 1.0 and found.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
