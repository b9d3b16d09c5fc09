"""Jobs one after another in the process that asks, for tests and debuggers; code that exits ends them all."""

from __future__ import annotations

import json
import sys
from collections import deque

from paretune.core.user_folders import folders_kept
from paretune.executors import Event, Job
from paretune.executors.cores import cores
from paretune.executors.jobs import Link, Message, event, run_job


class InProcess:
    """Runs a job to its end whenever it is asked for events.

    Attributes:
        threads: Threads a job may use.
    """

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or cores()
        self._jobs: deque[Job] = deque()
        self._stopping = False

    def submit(self, job: Job) -> None:
        """Take a job."""
        self._jobs.append(Job(job.name, job.run, json.loads(json.dumps(job.payload))))  # as if it had travelled

    def events(self, timeout_seconds: float) -> list[Event]:
        """Run one job, however long it takes, and return all that it said."""
        found: list[Event] = []
        while self._stopping and self._jobs:
            found.append(Event(self._jobs.popleft().name, "stopped", {}))
        self._stopping = False
        if self._jobs:
            job, path = self._jobs.popleft(), list(sys.path)

            def send(message: Message) -> None:
                found.append(event(job.name, json.loads(json.dumps(message))))

            with folders_kept():
                send(run_job(job.run, job.payload, Link(send, lambda: self._stopping, self.threads)))
            sys.path[:] = path
        return found

    def stop(self) -> None:
        """Have the job under way stop, and those that wait for it never begin."""
        self._stopping = True
