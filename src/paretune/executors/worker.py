"""A long-lived worker process: imports once, then runs one job after another until its parent is gone.

Started by `processes.py` as `python -m paretune.executors.worker DESCRIPTOR THREADS`. Over the socket go
lines of JSON: jobs and `stop` in, messages of events out. Code that a job runs may do to its process what it likes; the
socket is checked before it is used, so that no message ever goes into a file that has taken its number.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import queue
import resource
import select
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from typing import Any, NoReturn

from paretune.executors.jobs import Link, Message, run_job
from paretune.executors.leftovers import MARK, end_marked

HIGH = 500  # descriptors from here on are not what code hits that closes, or writes to, some low number
CHECK_SECONDS = 1.0  # between two looks at whether the parent lives
SIGNAL_OF_DEATH = 1  # PR_SET_PDEATHSIG of linux/prctl.h: what this process is sent when its parent dies
BROKEN = 70  # exit status of a worker whose descriptors were closed by the code it ran


class Connection:
    """The worker's end of the socket, and what keeps it safe from the code that jobs run."""

    def __init__(self, descriptor: int) -> None:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]  # 256 on macOS, or none, which is -1
        number = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, min(HIGH, limit // 2) if limit > 0 else HIGH)
        os.close(descriptor)
        self._socket = socket.socket(fileno=number)
        self._node = os.fstat(number).st_ino
        self._process, self._parent = os.getpid(), os.getppid()
        self._lock = threading.Lock()
        if sys.platform == "linux":  # a stopped process would never notice that its parent has died
            ctypes.CDLL(None).prctl(SIGNAL_OF_DEATH, signal.SIGCONT)
        os.register_at_fork(after_in_child=self._socket.close)  # who ends the socket is the worker alone

    def check(self) -> None:
        """End this process if a job's code has forked and returned in the child, or closed what is needed here."""
        if os.getpid() != self._process:
            os._exit(1)
        try:
            whole = os.fstat(self._socket.fileno()).st_ino == self._node
            for standard in (1, 2):
                os.fstat(standard)
        except OSError:
            whole = False
        if not whole:
            os._exit(BROKEN)

    def send(self, message: Message) -> None:
        """Send a message."""
        data = json.dumps(message).encode() + b"\n"
        with self._lock:
            self.check()
            self._socket.sendall(data)

    def receive(self) -> bytes:
        """Wait for bytes; none when the parent is gone."""
        while os.getppid() == self._parent:
            self.check()
            try:
                if select.select([self._socket], [], [], CHECK_SECONDS)[0]:
                    return self._socket.recv(1 << 16)
            except ConnectionResetError:
                return b""
            except (OSError, ValueError):  # closed, between the check and its use
                self.check()
        return b""


def serve(connection: Connection, threads: int) -> NoReturn:
    """Run jobs until the parent is gone; whatever they have left running ends with it."""
    jobs: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
    stop, mark = threading.Event(), os.environ[MARK]
    # the parent stops a job by its own word; a handler, as what a job starts would inherit that a signal is ignored
    signal.signal(signal.SIGINT, lambda number, frame: None)

    def listen() -> None:
        received = bytearray()
        try:
            while data := connection.receive():
                received += data
                *lines, received = received.split(b"\n") if b"\n" in data else [received]
                for line in lines:
                    message = json.loads(line)
                    if "stop" in message:
                        stop.set()
                    else:
                        jobs.put(message)
        finally:  # nobody is left to report to
            end_marked(mark)
            os.killpg(0, signal.SIGKILL)

    def stopped() -> bool:
        connection.check()
        return stop.is_set()

    threading.Thread(target=listen, daemon=True).start()
    while True:
        job = jobs.get()
        connection.send(run_job(job["run"], job["payload"], Link(connection.send, stopped, threads)))


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), threads=int(sys.argv[2]))
