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

from paretune.benchmark.executors import LAST, Event, Job
from paretune.benchmark.executors.jobs import Message, event, failure
from paretune.benchmark.executors.leftovers import MARK, end_marked, folder_mark
from paretune.benchmark.executors.worker import BROKEN
from paretune.records.study import FailureReason

STOP_SECONDS = 20.0  # a stopped job may finish its update and write a checkpoint
END_SECONDS = 5.0  # a process whose socket has ended may still be about to end
CHECK_SECONDS = 0.5  # between two looks at whether workers live
LOG_BYTES = 1 << 20  # of a worker's log; what came before is kept once, then forgotten
MESSAGE_BYTES = 1 << 26  # more without an end is no message
READ_BYTES = 1 << 20  # of a worker at once, so that one that prints without end keeps nobody waiting
ONE_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
SPOILED = "what it sent is no message, as where code writes to file descriptors that it did not open"


class LocalProcesses:
    """Runs each job in a worker process of its own, which the next job takes over.

    A worker that dies, that is stopped by a signal or that says something senseless is ended, and its job fails. All
    processes that a worker leaves behind end with it.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        self._folder = folder
        self._threads = threads
        self._workers: list[_Worker] = []
        self._stopping = False
        self._deadline: float | None = None  # for jobs that were asked to stop

    def submit(self, job: Job) -> None:
        """Give a job to an idle worker, or to a new one."""
        idle = [worker for worker in self._workers if worker.job is None]
        if not idle:
            taken = {worker.number for worker in self._workers}
            number = next(number for number in range(len(taken) + 1) if number not in taken)
            idle = [_Worker(number, self._threads, self._folder)]
            self._workers += idle
        idle[0].job = job.name
        idle[0].send({"job": job.name, "run": job.run, "payload": job.payload})

    def events(self, timeout_seconds: float) -> list[Event]:
        """Return what has happened since the last call."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            self._ask_to_stop()
            found = [each for worker in list(self._workers) for each in self._heard(worker)]
            if not self._workers:
                self._stopping, self._deadline = False, None
            left = deadline - time.monotonic()
            if found or left <= 0 or not self._workers:
                return found
            with selectors.DefaultSelector() as selector:
                for worker in self._workers:
                    worker.register(selector)
                selector.select(min(left, CHECK_SECONDS))

    def stop(self) -> None:
        """Have all jobs stop."""
        self._stopping = True

    def _ask_to_stop(self) -> None:
        if self._stopping and self._deadline is None:
            self._deadline = time.monotonic() + STOP_SECONDS
            for worker in self._workers:
                worker.send({"stop": True})

    def _heard(self, worker: _Worker) -> list[Event]:
        lives = worker.process.poll() is None  # asked first: what it said before it died is read below
        found = []
        for message in worker.receive():
            if worker.job is not None:
                found.append(event(worker.job, message))
                worker.job = None if message["kind"] in LAST else worker.job
        late = self._deadline is not None and (worker.job is None or time.monotonic() > self._deadline)
        if not lives or worker.trouble or late or worker.is_stopped():
            self._workers.remove(worker)
            why = worker.end(wait=not late)
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
        self._log = _Log(log_path(folder, number))
        self._connection, theirs = socket.socketpair()
        self._connection.setblocking(False)
        self._printed, printing = os.pipe()
        os.set_blocking(self._printed, False)
        self._prints = True
        environment = dict(os.environ) | {MARK: self._mark, "TOKENIZERS_PARALLELISM": "false"}
        environment.update(dict.fromkeys(ONE_THREAD_VARIABLES, str(threads)))
        environment.setdefault("TQDM_DISABLE", "1")  # bars for loading a model fill the log, whoever started the run
        source = str(Path(__file__).parents[3])  # a worker finds the same paretune, installed or not
        paths = [source, *environment.get("PYTHONPATH", "").split(os.pathsep)]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        command = [sys.executable, "-X", "faulthandler", "-m", __name__.replace("processes", "worker")]
        self.process = subprocess.Popen(
            [*command, "--fd", str(theirs.fileno()), "--threads", str(threads)],
            stdin=subprocess.DEVNULL,
            stdout=printing,
            stderr=printing,
            env=environment,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,  # Ctrl-C reaches the parent only, which then stops workers in order
        )
        theirs.close()
        os.close(printing)
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
                message = json.loads(line)
                messages.append({**message, "kind": message["kind"]})
            except (ValueError, TypeError, KeyError, RecursionError):
                self.trouble = SPOILED
                return messages
        if len(self._received) > MESSAGE_BYTES:
            self.trouble = SPOILED
        elif ended:
            self.trouble = "its socket was closed"
        return messages

    def _keep_printed(self) -> None:
        printed, ended = _read(lambda size: os.read(self._printed, size))
        self._log.write(printed)
        self._prints = not ended

    def is_stopped(self) -> bool:
        """Return whether a signal has stopped the process, which then nobody would ever hear of again."""
        try:
            if psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED:
                self.trouble = "it was stopped by a signal, so that it could not go on"
        except psutil.Error:  # ended meanwhile
            return False
        return bool(self.trouble)

    def end(self, wait: bool) -> tuple[FailureReason, str]:
        """End the process and all that it left behind, and say why it ended; it may `wait` for it to end by itself."""
        if wait:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=END_SECONDS if self.trouble.startswith("its socket") else 0)
        killed = self.process.poll() is None
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody of its group is left
            os.killpg(self.process.pid, signal.SIGKILL)
        code = self.process.wait()
        end_marked(self._mark)
        self._keep_printed()
        self._connection.close()
        os.close(self._printed)
        log = f"see logs/{self._log.path.name}"
        if killed and self.trouble:
            return "crash", f"the worker process was ended: {self.trouble}; {log}"
        if code == -signal.SIGKILL and _oom_kills() > self._oom_kills:
            return "out_of_memory", f"the system ended the worker process because memory ran out; {log}"
        if code == BROKEN:
            return "crash", f"the worker process ended: code that it ran had closed its file descriptors; {log}"
        if code < 0:
            return "crash", f"the worker process was ended by {signal.Signals(-code).name}; {log}"
        return "crash", f"the worker process ended with code {code}; {log}"


class _Log:
    """What a worker printed: a file that is put aside when it is full, in place of the one put aside before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def write(self, data: bytes) -> None:
        """Append to the log, or nothing where the disk is full."""
        with contextlib.suppress(OSError):
            if data and self.path.stat().st_size + len(data) > LOG_BYTES:
                os.replace(self.path, self.path.with_suffix(".1.log"))
            if data:
                with self.path.open("ab") as file:
                    file.write(data)


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
    except BlockingIOError:
        return data, False
    except OSError:  # reset
        return data, True
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
