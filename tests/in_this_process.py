"""Workers that are no processes, for studies whose processes are not the point: `import in_this_process`.

A real worker spends seconds on importing torch before its first job. These run each job at once, between the same lines
of JSON.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paretune.benchmark.worker import Link, run_job


class WorkerHere:
    """Stands in for `paretune.benchmark.executors.Worker`."""

    def __init__(self, number: int, threads: int, log: Path, keep_open: Sequence[int]) -> None:
        self.number = number
        self.job: Any = None
        self.connection, self._ours = socket.socketpair()
        self._lines: list[str] = []

    def give(self, job: Any, payload: Mapping[str, object]) -> None:
        """Run a job to its end; the scheduler hears of it when it asks."""
        self.job, path = job, list(sys.path)
        link = Link(lambda message: self._lines.append(json.dumps(message)), lambda: False, 1)
        self._lines.append(json.dumps(run_job(json.loads(json.dumps(payload)), link)))
        sys.path[:] = path
        self._ours.sendall(b"\n")

    def receive(self) -> list[dict[str, Any]]:
        """Return all that the job said."""
        self.connection.recv(1)
        lines, self._lines = self._lines, []
        return [json.loads(line) for line in lines]

    def ask_to_stop(self) -> None:
        """Do nothing: no job is under way when anybody can ask."""

    def close(self, patience: float = 0.0) -> None:
        """Leave nothing open."""
        self.connection.close()
        self._ours.close()
