"""The parent's side of its worker processes: start them, give them jobs, hear from them, notice when one dies."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from paretune.records.study import FailureReason

STOP_SECONDS = 20.0  # a stopped job may finish its update and write a checkpoint
ONE_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Worker:
    """One worker process.

    Attributes:
        number: Its place, which a replacement takes over.
        job: What it works on, or None.
        started: When the job was given, by the monotonic clock.
    """

    def __init__(self, number: int, threads: int, log: Path, keep_open: Sequence[int]) -> None:
        self.number = number
        self.job: Any = None
        self.started = 0.0
        self._buffer = b""
        self.connection, theirs = socket.socketpair()
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = dict(os.environ)
        environment.update(dict.fromkeys(ONE_THREAD_VARIABLES, str(threads)), TOKENIZERS_PARALLELISM="false")
        environment.setdefault("TQDM_DISABLE", "1")  # bars for loading a model fill the log, whoever started the run
        source = str(Path(__file__).parents[2])  # a worker finds the same paretune, installed or not
        paths = [source, *environment.get("PYTHONPATH", "").split(os.pathsep)]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        with log.open("ab") as output:
            module = __name__.replace("executors", "worker")
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, "--fd", str(theirs.fileno()), "--threads", str(threads)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                pass_fds=(theirs.fileno(), *keep_open),
                start_new_session=True,  # Ctrl-C reaches the parent only, which then stops workers in order
            )
        theirs.close()
        self._oom_kills = _oom_kills()

    def give(self, job: Any, payload: Mapping[str, object]) -> None:
        """Start a job; `job` is kept for the caller."""
        self.job = job
        self.started = time.monotonic()
        with contextlib.suppress(
            OSError
        ):  # it died while idle; the next read says so, and the job is then treated like any crashed one
            self.connection.sendall(json.dumps(payload).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]] | None:
        """Return messages that have arrived, or None when the process is gone."""
        try:
            data = self.connection.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        if not data:
            return None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def cause_of_death(self) -> tuple[FailureReason, str]:
        """Wait for a process that closed its connection and say why it ended."""
        try:
            code = self.process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.connection.close()
        log = f"see logs/worker-{self.number}.log"
        if code == -signal.SIGKILL and _oom_kills() > self._oom_kills:
            return "out_of_memory", f"the system ended the worker process because memory ran out; {log}"
        if code < 0:
            return "crash", f"the worker process was ended by {signal.Signals(-code).name}; {log}"
        return "crash", f"the worker process ended with code {code}; {log}"

    def ask_to_stop(self) -> None:
        """Ask the job to stop at its next report of progress."""
        with contextlib.suppress(OSError):  # already gone
            self.connection.sendall(b'{"kind": "stop"}\n')

    def close(self, patience: float = 0.0) -> None:
        """End the process; it may take `patience` seconds to stop its job first."""
        deadline = time.monotonic() + patience
        while self.job is not None and self.process.poll() is None and time.monotonic() < deadline:
            with selectors.DefaultSelector() as selector:
                selector.register(self.connection, selectors.EVENT_READ)
                if not selector.select(timeout=0.2):
                    continue
            messages = self.receive()
            if messages is None or any(message["kind"] in ("done", "failed", "stopped") for message in messages):
                break
        self.connection.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


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


def worker_count(asked: int | Literal["auto"], small: bool) -> int:
    """Return how many workers to start: as many as cores for small models on the CPU, else one."""
    if asked != "auto":
        return asked
    return cores() if small else 1


def worker_threads(workers: int) -> int:
    """Return how many threads each worker computes with: one where several share the cores, else one a core."""
    return 1 if workers > 1 else cores()


def cores() -> int:
    """Return the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
