"""Where the jobs of a study run: all that the scheduler knows of it, so that a cluster can be one more place.

| executor | a job runs in |
|---|---|
| `processes.LocalProcesses` | a worker process of this machine |
| `in_process.InProcess` | the process that asks |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

EventKind = Literal["progress", "sealed", "done", "failed", "stopped"]
LAST: tuple[EventKind, ...] = ("done", "failed", "stopped")  # every job ends with one of these


@dataclass(frozen=True)
class Job:
    """Something to be done somewhere.

    Attributes:
        name: Tells it from every other job under way.
        run: `module:function`; it is called with the payload and an `executors.jobs.Link`.
        payload: Plain JSON data. `imports` in it, where given, becomes the import path.
    """

    name: str
    run: str
    payload: Mapping[str, Any]


@dataclass(frozen=True)
class Event:
    """Something that became known of a job.

    Attributes:
        job: Its name.
        kind: What happened; nothing comes after `done`, `failed` or `stopped`.
        data: Plain JSON data: `completions` and `message` of progress, `key` of a sealed stage, `result` of a job that
            is done, and of a failed one `reason`, `message` and whether what ran it `died`.
    """

    job: str
    kind: EventKind
    data: Mapping[str, Any]


class Executor(Protocol):
    """Runs jobs, as many at once as it is given."""

    def submit(self, job: Job) -> None:
        """Take a job; what becomes of it is told by `events`. One for which this raises is not taken."""
        ...

    def events(self, timeout_seconds: float) -> list[Event]:
        """Return what has happened since the last call, those of one job in order; wait for it no longer than told."""
        ...

    def stop(self) -> None:
        """Have all jobs stop at their next report of progress; `events` tells when each has.

        It returns at once and may be called by a signal handler. When `events` has told the end of the last job,
        nothing is left running; new jobs may then be submitted.
        """
        ...
