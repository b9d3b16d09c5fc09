"""Worker processes of this machine: start them, give them jobs, hear from them, notice when one dies."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from paretune.core.text_files import parsed_json
from paretune.executors import LAST, Event, Job
from paretune.executors.jobs import Message, event, failure
from paretune.executors.leftovers import MARK, end_marked, folder_mark
from paretune.executors.worker import BROKEN
from paretune.records.study import FailureReason

STOP_SECONDS = 20.0  # a stopped job may finish its update and write a checkpoint
END_SECONDS = 5.0  # a process whose socket has ended may still be about to end
CHECK_SECONDS = 0.5  # between two looks at whether workers live
LOG_BYTES = 1 << 20  # of a worker's log; what came before is kept once, then forgotten
MESSAGE_BYTES = 1 << 26  # more without an end is no message
READ_BYTES = 1 << 20  # of a worker at once, so that one that prints without end keeps nobody waiting
ONE_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
SIGNALS = {each.value: each.name for each in signal.Signals}
SPOILED = "what it sent is no message, as where code writes to file descriptors that it did not open"
CLOSED = "its socket was closed"
STOPPED = "it was stopped by a signal, so that it could not go on"


class LocalProcesses:
    """Runs each job in a worker process of its own, which the next job takes over.

    A worker that dies, that is stopped by a signal or that says something senseless is ended, and its job fails. All
    processes that a worker leaves behind end with it. A job that was asked to stop has `stop_seconds` to do so.
    """

    def __init__(self, folder: Path, threads: int, stop_seconds: float = STOP_SECONDS) -> None:
        self._folder = folder
        self._threads = threads
        self._stop_seconds = stop_seconds
        self._workers: list[_Worker] = []
        self._stopping = False
        self._deadline: float | None = None  # for jobs that were asked to stop

    def submit(self, job: Job) -> None:
        """Give a job to an idle worker, or to a new one.

        Raises:
            OSError: If no new one can be started.
        """
        idle = [worker for worker in self._workers if worker.job is None]
        if not idle:
            taken = {worker.number for worker in self._workers}
            number = next(number for number in range(len(taken) + 1) if number not in taken)
            idle = [_Worker(number, self._threads, self._folder)]
            self._workers += idle
        idle[0].send({"job": job.name, "run": job.run, "payload": job.payload})
        idle[0].job = job.name

    def events(self, timeout_seconds: float) -> list[Event]:
        """Return what has happened since the last call."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            if self._stopping and self._deadline is None:
                self._deadline = time.monotonic() + self._stop_seconds
                for worker in self._workers:
                    worker.send({"stop": True})
            found = [each for worker in list(self._workers) for each in self._heard(worker)]
            if not self._workers:
                self._stopping, self._deadline = False, None
            left = deadline - time.monotonic()
            if found or left <= 0 or not self._workers:
                return found
            with selectors.PollSelector() as selector:  # it opens no file, of which there may be too many
                for worker in self._workers:
                    worker.register(selector)
                selector.select(min(left, CHECK_SECONDS))

    def stop(self) -> None:
        """Have all jobs stop."""
        self._stopping = True

    def _heard(self, worker: _Worker) -> list[Event]:
        lost = worker.is_lost()  # asked first: what it said before it died is read below
        found = []
        for message in worker.receive():
            if worker.job is not None:
                found.append(event(worker.job, message))
                worker.job = None if message["kind"] in LAST else worker.job
        late = self._deadline is not None and (worker.job is None or time.monotonic() > self._deadline)
        if lost or worker.trouble or late:
            self._workers.remove(worker)
            why = worker.end()
            if worker.job is not None:
                end: Message = {"kind": "stopped"} if late else failure(*why, died=True)
                found.append(event(worker.job, end))
        return found


class _Worker:
    """One worker process; `number` is its place, which a replacement takes over."""

    def __init__(self, number: int, threads: int, folder: Path) -> None:
        self.number = number
        self.job: str | None = None
        self.trouble = ""
        self._received = bytearray()
        self._unsent = bytearray()
        self._mark = folder_mark(folder) + secrets.token_hex(8)
        self._log = log_path(folder, number)
        self._keep(b"")
        self._prints = True
        environment = dict(os.environ) | {MARK: self._mark, "TOKENIZERS_PARALLELISM": "false"}
        environment.update(dict.fromkeys(ONE_THREAD_VARIABLES, str(threads)))
        environment.setdefault("TQDM_DISABLE", "1")  # bars for loading a model fill the log, whoever started the run
        source = str(Path(__file__).parents[2])  # a worker finds the same paretune, installed or not
        paths = [source, *environment.get("PYTHONPATH", "").split(os.pathsep)]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        command = [sys.executable, "-X", "faulthandler", "-m", __name__.replace("processes", "worker")]
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:  # closed if it cannot be started
            self._connection, connection = socket.socketpair()
            ours.callback(self._connection.close)
            theirs.callback(connection.close)
            self._connection.setblocking(False)
            self._printed, printing = os.pipe()
            ours.callback(os.close, self._printed)
            theirs.callback(os.close, printing)
            os.set_blocking(self._printed, False)
            self.process = subprocess.Popen(
                [*command, str(connection.fileno()), str(threads)],
                stdin=subprocess.DEVNULL,
                stdout=printing,
                stderr=printing,
                env=environment,
                pass_fds=(connection.fileno(),),
                start_new_session=True,  # Ctrl-C reaches the parent only, which then stops workers in order
            )
            self._opened = ours.pop_all()
        self._oom_kills = _oom_kills()

    def send(self, message: Message) -> None:
        """Send a message, the rest of it in later calls of `receive` where the worker does not read."""
        self._unsent += json.dumps(message).encode() + b"\n"
        self._send()

    def _send(self) -> None:
        with contextlib.suppress(OSError):  # it does not read now, or it is dead, which is noticed elsewhere
            while self._unsent:
                del self._unsent[: self._connection.send(self._unsent)]

    def register(self, selector: selectors.BaseSelector) -> None:
        """Have a selector wake when there is something to read or to send."""
        if self._prints:
            selector.register(self._printed, selectors.EVENT_READ)
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
        selector.register(self._connection, wanted)

    def receive(self) -> list[Message]:
        """Return messages that have arrived; `trouble` says why there will be no more."""
        self._send()
        self._keep_printed()
        data, ended = _read(self._connection.recv)
        self._received += data
        *lines, self._received = self._received.split(b"\n") if b"\n" in data else [self._received]
        messages: list[Message] = []
        for line in lines:
            try:
                message = parsed_json(line)
                messages.append({**message, "kind": message["kind"]})
            except (ValueError, TypeError, KeyError):
                self.trouble = SPOILED
                return messages
        if len(self._received) > MESSAGE_BYTES:
            self.trouble = SPOILED
        elif ended:
            self.trouble = CLOSED
        return messages

    def _keep_printed(self) -> None:
        printed, ended = _read(lambda size: os.read(self._printed, size))
        self._prints = not ended
        if printed:
            self._keep(printed)

    def _keep(self, printed: bytes) -> None:
        """Append to the log, whose first part is put aside when it is full, in place of the one before."""
        with contextlib.suppress(OSError):  # a full disk stops no job
            self._log.parent.mkdir(parents=True, exist_ok=True)
            if self._log.exists() and self._log.stat().st_size + len(printed) > LOG_BYTES:
                os.replace(self._log, self._log.with_suffix(".1.log"))
            with self._log.open("ab") as file:
                file.write(printed)

    def is_lost(self) -> bool:
        """Return whether no job can go on here: the process has ended, is stopped by a signal, or is not understood."""
        with contextlib.suppress(psutil.Error, OSError):  # ended, or too many files are open to look
            if psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED:
                self.trouble = STOPPED
        return bool(self.trouble) or self.process.poll() is not None

    def end(self) -> tuple[FailureReason, str]:
        """End the process and all that it left behind, and say why it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(END_SECONDS if self.trouble == CLOSED else 0)
        killed = self.process.poll() is None
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody of its group is left
            os.killpg(self.process.pid, signal.SIGKILL)
        code = self.process.wait()
        self._keep_printed()
        self._opened.close()  # first: to look for processes takes a file, and too many may be open
        end_marked(self._mark)
        reason: FailureReason = "crash"
        if killed and self.trouble:
            how = f"was ended: {self.trouble}"
        elif code == -signal.SIGKILL and _oom_kills() > self._oom_kills:
            reason, how = "out_of_memory", "was ended by the system because memory ran out"
        elif code == BROKEN:
            how = "ended: code that it ran had closed its file descriptors"
        elif code < 0:
            how = f"was ended by {SIGNALS.get(-code, f'signal {-code}')}"
        else:
            how = f"ended with code {code}"
        return reason, f"the worker process {how}; see logs/{self._log.name}"


def log_path(folder: Path, worker: int) -> Path:
    """Return what a worker printed."""
    return folder / "logs" / f"worker-{worker}.log"


def _read(read: Callable[[int], bytes]) -> tuple[bytes, bool]:
    """Return what can be read without waiting, up to a limit, and whether the end was reached."""
    data = b""
    try:
        while len(data) < READ_BYTES:
            more = read(1 << 16)
            if not more:
                return data, True
            data += more
    except OSError as error:  # nothing is there now, or it was reset
        return data, not isinstance(error, BlockingIOError)
    return data, False


def _oom_kills() -> int:
    """Count the kernel's out-of-memory kills, of our control group where it tells; 0 where nothing tells."""
    for path, name in (("/sys/fs/cgroup/memory.events", "oom_kill"), ("/proc/vmstat", "oom_kill")):
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        for line in lines:
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0
