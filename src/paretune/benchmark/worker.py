"""A long-lived worker process: imports once, then runs one job after another until its parent is gone.

Started by `executors.py` as `python -m paretune.benchmark.worker --fd N --threads T`. Over the socket go lines of
JSON: jobs and `stop` in; `progress`, `sealed`, `done` and `failed` out.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from paretune.benchmark.executors import cores
from paretune.core.errors import (
    AdapterError,
    MethodError,
    ModelError,
    NonFiniteError,
    RewardError,
    StopRequested,
    TaskError,
)
from paretune.core.imports import import_name
from paretune.core.user_calls import described, one_line, user_line
from paretune.core.user_folders import look_in
from paretune.records.files import is_disk_full
from paretune.records.study import FailureReason

PROGRESS_SECONDS = 0.5  # between two progress messages


class Link:
    """What a job may use of its worker: report progress, notice a stop.

    Attributes:
        threads: Threads a job may use.
    """

    def __init__(self, send: Callable[[Mapping[str, object]], None], stopped: Callable[[], bool], threads: int) -> None:
        self.threads = threads
        self._send = send
        self._stopped = stopped
        self._completions = 0
        self._reported = 0.0

    def send(self, message: Mapping[str, object]) -> None:
        """Send a message to the parent at once."""
        self._send(message)

    def progress(self, completions: int, message: str = "") -> None:
        """Report completions made since the last call.

        Raises:
            StopRequested: If the parent asked the worker to stop.
        """
        self._completions += completions
        if time.monotonic() - self._reported >= PROGRESS_SECONDS:
            self.flush(message)
        if self._stopped():
            raise StopRequested

    def flush(self, message: str = "") -> None:
        """Report what `progress` has gathered."""
        if self._completions:
            self._send({"kind": "progress", "completions": self._completions, "message": message})
        self._completions = 0
        self._reported = time.monotonic()


def quiet_link() -> Link:
    """Return a link that reports to nobody, for jobs run in this process."""
    return Link(lambda message: None, lambda: False, cores())


def failure_reason(error: BaseException) -> FailureReason:
    """Name the cause of a failed job with a word of the fixed list."""
    if isinstance(error, MethodError) and error.__cause__ is not None:  # what a user's code raised
        return failure_reason(error.__cause__)
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        return "out_of_memory"
    if is_disk_full(error):
        return "disk_full"
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    return "method_error"


_REASONS: tuple[tuple[type[BaseException], FailureReason], ...] = (
    (NonFiniteError, "not_finite"),
    (RewardError, "reward_error"),
    (TaskError, "task_error"),
    (ModelError, "model_error"),
    (AdapterError, "model_error"),
)


def _is_out_of_memory(error: BaseException) -> bool:
    """Torch raises a plain RuntimeError on the CPU, and its own class, a RuntimeError too, on a GPU."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def run_job(job: Mapping[str, Any], link: Link) -> dict[str, object]:
    """Run one job and describe how it ended."""
    sys.path[:] = job.get("imports", sys.path)  # the parent's: a name must mean the same file here
    look_in(*reversed(job.get("folders", ())))
    try:
        result = import_name("job", str(job["run"]))(job, link)
        link.flush()
        return {"kind": "done", "result": result}
    except StopRequested:
        return {"kind": "stopped"}
    except BaseException as error:  # noqa: BLE001  # the boundary of a process: whatever a method raises fails its cell
        traceback.print_exc()
        sys.stderr.flush()
        known = type(error).__module__ == "paretune.core.errors"
        message = one_line(str(error), 2000) if known else f"{described(error)}{user_line(error)}"
        return {"kind": "failed", "reason": failure_reason(error), "message": message}


def serve(connection: socket.socket, threads: int) -> None:
    """Run jobs from `connection` until it is closed."""
    jobs: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
    stop = threading.Event()
    lock = threading.Lock()

    def send(message: Mapping[str, object]) -> None:
        with lock:
            connection.sendall(json.dumps(message).encode() + b"\n")

    def listen() -> None:
        try:
            with connection.makefile("r", encoding="utf-8") as lines:
                for line in lines:
                    message = json.loads(line)
                    if message["kind"] == "stop":
                        stop.set()
                    else:
                        jobs.put(message)
        finally:  # also after a torn line or a reset connection, which a killed parent may leave behind
            os._exit(0)  # nobody is left to report to, and a new run may be waiting for the folder

    threading.Thread(target=listen, daemon=True).start()
    send({"kind": "ready", "pid": os.getpid()})
    while True:
        send(run_job(jobs.get(), Link(send, stop.is_set, threads)))


def main() -> None:
    """Serve the socket whose file descriptor the parent handed over."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    serve(socket.socket(fileno=arguments.fd), arguments.threads)


if __name__ == "__main__":
    main()
