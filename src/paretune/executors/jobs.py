"""What a job is given where it runs, and how its end is told, whichever executor runs it."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

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
from paretune.core.surroundings import surroundings_kept
from paretune.core.user_calls import described, one_line, user_line
from paretune.core.user_folders import look_in
from paretune.executors import Event
from paretune.executors.cores import cores
from paretune.records.files import is_disk_full
from paretune.records.study import FailureReason

PROGRESS_SECONDS = 0.5  # between two progress messages
MESSAGE_CHARACTERS = 2000  # of a failure's message that are kept

Message = Mapping[str, Any]  # an event on its way: its kind and its data in one


class Link:
    """What a job may use of what runs it: report progress, notice a stop.

    Attributes:
        threads: Threads a job may use.
        stopped: Whether the job was asked to stop.
    """

    def __init__(self, send: Callable[[Message], None], stopped: Callable[[], bool], threads: int) -> None:
        self.threads = threads
        self.stopped = stopped
        self._send = send
        self._completions = 0
        self._reported = 0.0

    def send(self, message: Message) -> None:
        """Tell an event at once."""
        self._send(message)

    def progress(self, completions: int, message: str = "") -> None:
        """Report completions made since the last call.

        Raises:
            StopRequested: If the job was asked to stop.
        """
        self._completions += completions
        if time.monotonic() - self._reported >= PROGRESS_SECONDS:
            self.flush(message)
        if self.stopped():
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
    text = described(error).lower() if isinstance(error, RuntimeError) else ""
    return "out of memory" in text or "can't allocate memory" in text


def event(job: str, message: Message) -> Event:
    """Make an event of a message."""
    return Event(job, message["kind"], {name: value for name, value in message.items() if name != "kind"})


def failure(reason: FailureReason, message: str, died: bool = False) -> Message:
    """Return the message that a job has failed; `died` where what ran it is gone."""
    return {"kind": "failed", "reason": reason, "message": message[:MESSAGE_CHARACTERS], "died": died}


def run_job(run: str, payload: Mapping[str, Any], link: Link) -> Message:
    """Run one job and tell how it ended: the boundary of a job, which fails alone, whatever its code raises."""
    sys.path[:] = payload.get("imports", sys.path)  # of who asks: a name must mean the same file here
    look_in(*reversed(payload.get("folders", ())))
    try:
        with surroundings_kept():
            result = json.loads(json.dumps(import_name("job", run)(payload, link)))
        link.flush()
        return {"kind": "done", "result": result}
    except BaseException as error:  # noqa: BLE001  # a user's code may exit, or interrupt itself
        if link.stopped():
            return {"kind": "stopped"}
        with contextlib.suppress(Exception):  # it may have closed the log, or put its own in its place
            traceback.print_exc()
            sys.stderr.flush()
        if isinstance(error, StopRequested):
            message = f"was interrupted by SIGINT{user_line(error)}"
        elif type(error).__module__ == "paretune.core.errors":
            message = one_line(str(error), MESSAGE_CHARACTERS)
        else:
            message = f"{described(error)}{user_line(error)}"
        return failure(failure_reason(error), message)
