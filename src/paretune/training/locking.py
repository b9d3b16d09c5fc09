"""One process at a time in an output folder."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from paretune.core.disk_errors import explained
from paretune.core.errors import StudyError
from paretune.executors.leftovers import end_marked, folder_mark

LOCK = ".lock"
DYING_SECONDS = 5.0  # a child that a killed run has just forked holds its lock until it first runs


@contextmanager
def locked(root: Path, shown: Path | None = None) -> Iterator[None]:
    """Hold a folder against other processes, and end what a killed run has left working on it.

    Args:
        root: The folder that gets the lock file.
        shown: What the user calls it, where that is another folder.

    Raises:
        StudyError: If another process works on it, or it cannot be locked.
    """
    path = root / LOCK
    lock = FileLock(path, timeout=0, thread_local=False, fallback_to_soft=False)
    try:
        root.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            if not _is_dead(path):
                raise
            lock.acquire(timeout=DYING_SECONDS)
        path.write_text(f"{os.getpid()} {platform.node()}", encoding="utf-8")
    except Timeout:
        raise StudyError(
            f"output folder must be used by one process at a time, got '{shown or root}', which {_holder(path)} is "
            "working on. Wait for it, or choose another folder with -o."
        ) from None
    except OSError as error:
        raise StudyError(
            f"output folder must be one to write to and lock files in, got '{shown or root}': {explained(error)}"
        ) from error
    try:
        end_marked(folder_mark(root))
        yield
    finally:
        lock.release()


def _written(path: Path) -> tuple[int | None, str]:
    """Return number and host of the process that wrote a lock file, where it says so."""
    try:
        process, _, host = path.read_text(encoding="utf-8").partition(" ")
    except (OSError, ValueError):
        return None, ""
    return (int(process) if process.isdecimal() else None), host


def _is_dead(path: Path) -> bool:
    process, host = _written(path)
    return process is not None and host == platform.node() and not psutil.pid_exists(process)


def _holder(path: Path) -> str:
    process, host = _written(path)
    where = f" on {host}" if host not in ("", platform.node()) else ""
    return "another process" if process is None else f"process {process}{where}"
