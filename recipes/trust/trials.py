"""One command in a process of its own, forked from one that has imported everything, and what was wrong with it."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tiny import take_output  # type: ignore[import-not-found]  # the script beside this one

CPU_SECONDS, WALL_SECONDS = 10.0, 30.0  # what a command may compute, and how long it may wait
MEMORY_BYTES = 2**30
ERROR_CHARACTERS, ERROR_LINES = 2000, 24  # a screen; a usage error is drawn in a box
STATUSES = (0, 1, 2, 3)  # as `paretune.cli.main` documents them
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u202a-\u202e\u2066-\u2069]")
FRAME = re.compile(r'File "(?:.*/)?(src/paretune|site-packages|lib/python[\d.]+)/([^"]+)", line \d+, in (\S+)')


@dataclass(frozen=True)
class Trial:
    """An input on disk.

    Attributes:
        name: SEED:NUMBER, which makes the same input again.
        kind: What was mutated.
        folder: Where the command runs.
        arguments: The command line.
        note: What was done to the input, for people.
    """

    name: str
    kind: str
    folder: Path
    arguments: tuple[str, ...]
    note: str


@dataclass(frozen=True)
class Verdict:
    """What became of a trial.

    Attributes:
        trial: The trial.
        fault: What was wrong, in words that equal faults share; empty where nothing was.
        detail: The last lines it printed.
        seconds: Of the processor.
        growth: Bytes of memory beyond those it began with.
        status: Its exit status.
    """

    trial: Trial
    fault: str
    detail: str
    seconds: float
    growth: int
    status: int


def run_all(
    trials: Iterable[Trial], act: Callable[[Trial], int], together: int, done: Callable[[Trial], None]
) -> Iterator[Verdict]:
    """Run trials, some at the same time, and yield a verdict on each as it ends.

    Args:
        trials: Made one by one, when there is room for the next.
        act: Runs a trial in the child process and returns its exit status.
        together: How many run at once.
        done: Clears up after a trial and its verdict.
    """
    running: dict[int, _Child] = {}
    with selectors.DefaultSelector() as selector:
        for trial in trials:
            child = _Child(trial, act)
            running[child.process] = child
            selector.register(child.descriptor, selectors.EVENT_READ)
            while len(running) >= together:
                yield from _ended(selector, running, done)
        while running:
            yield from _ended(selector, running, done)


def _ended(
    selector: selectors.BaseSelector, running: dict[int, _Child], done: Callable[[Trial], None]
) -> Iterator[Verdict]:
    ready = {key.fd for key, _ in selector.select(0.5)}
    for child in list(running.values()):
        late = time.monotonic() - child.began > WALL_SECONDS and not _computes(child.process)
        if child.descriptor in ready or late:
            selector.unregister(child.descriptor)
            del running[child.process]
            yield child.verdict(late and child.descriptor not in ready)
            done(child.trial)


class _Child:
    """A process that runs one trial."""

    def __init__(self, trial: Trial, act: Callable[[Trial], int]) -> None:
        self.trial = trial
        self.began = time.monotonic()
        self.printed, self.errors = (os.memfd_create(name) for name in ("printed", "errors"))
        self.resident, total = _sizes()
        sys.stdout.flush()
        sys.stderr.flush()
        self.process = os.fork()
        if self.process == 0:
            _be_child(trial, act, self.printed, self.errors, total)
        self.descriptor = os.pidfd_open(self.process)

    def verdict(self, late: bool) -> Verdict:
        """Take what the child left, and judge it."""
        if late:
            os.killpg(self.process, signal.SIGKILL)
        _, code, usage = os.wait4(self.process, 0)
        left = _kill_group(self.process)
        printed, errors = _content(self.printed), _content(self.errors)
        os.close(self.descriptor)
        status = os.waitstatus_to_exitcode(code)
        seconds = usage.ru_utime + usage.ru_stime
        growth = max(0, usage.ru_maxrss * 1024 - self.resident)
        fault = "hang: waits for more than 30 s" if late else _fault(status, printed, errors, seconds, growth)
        if left and not fault:
            fault = "left over: a process of it goes on"
        detail = "\n".join((errors or printed).strip().splitlines()[-6:])
        return Verdict(self.trial, fault, detail[-1500:], seconds, growth, status)


def _fault(status: int, printed: str, errors: str, seconds: float, growth: int) -> str:
    """Name what is wrong with a command, the worst first."""
    if status == -signal.SIGXCPU:
        return "time: more than 10 s"
    if status < 0:
        return f"signal: {signal.Signals(-status).name}"
    if "Traceback (most recent call last)" in errors or "Exception ignored in" in errors:
        return f"traceback: {where_raised(errors)}"
    if growth > MEMORY_BYTES:
        return "memory: more than 1 GiB"
    if seconds > CPU_SECONDS:
        return "time: more than 10 s"
    if status not in STATUSES:
        return f"status: {status}"
    if status and not errors.strip() and not printed.strip():
        return f"silence: status {status} and no word"
    if CONTROL.search(printed) or CONTROL.search(errors):
        return "control characters in what is printed"
    if status in (2, 3) and (
        len(errors) > ERROR_CHARACTERS * (2 if "╭" in errors else 1) or len(errors.splitlines()) > ERROR_LINES
    ):
        return f"long error: {'lines' if len(errors.splitlines()) > ERROR_LINES else 'characters'}"
    return ""


def where_raised(text: str) -> str:
    """Return the kind of a traceback's error, and the last of our functions in it."""
    body = text.rpartition("Traceback (most recent call last):\n")[2].splitlines()
    end = next((line for line in body if line and not line[0].isspace()), "unknown")
    frames = FRAME.findall("\n".join(body))
    ours = [f"{file}:{name}" for room, file, name in frames if room == "src/paretune"]
    last = f"{frames[-1][1]}:{frames[-1][2]}" if frames else "?"
    return f"{end.split(':')[0]} in {ours[-1] if ours else '?'}" + ("" if ours and last == ours[-1] else f" ({last})")


def _be_child(trial: Trial, act: Callable[[Trial], int], printed: int, errors: int, total: int) -> None:
    status = 70
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (total + 4 * MEMORY_BYTES,) * 2)  # reserved memory is not used memory
        resource.setrlimit(resource.RLIMIT_FSIZE, (MEMORY_BYTES,) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (int(CPU_SECONDS) + 1, int(CPU_SECONDS) + 5))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        take_output(printed, errors)
        os.chdir(trial.folder)
        status = act(trial)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001  # what a command lets through is what is looked for
        try:
            traceback.print_exc()
        except BaseException:  # noqa: BLE001
            os.write(2, b"Traceback (most recent call last)\nUnprintable\n")
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status & 0xFF)


def _computes(process: int) -> bool:
    """Return whether a process computes or awaits its turn to; the limit of its processor time ends that."""
    with contextlib.suppress(OSError):
        return (
            Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0]
            in "RD"
        )
    return False


def _sizes() -> tuple[int, int]:
    """Return the resident and the virtual size of this process, in bytes."""
    total, resident = Path("/proc/self/statm").read_text(encoding="ascii").split()[:2]
    page = resource.getpagesize()
    return int(resident) * page, int(total) * page


def _kill_group(group: int) -> bool:
    """End what a child left running; return whether there was anything."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _content(descriptor: int) -> str:
    with open(descriptor, "rb") as file:
        file.seek(0)
        return file.read().decode("utf-8", "replace")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Lay rows out in columns."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
