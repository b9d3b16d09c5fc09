"""Processes that workers leave behind: children of the code they ran, and workers whose run was killed.

A worker's environment carries a mark, which all that descends from it inherits, daemons included.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import psutil

MARK = "PARETUNE_WORKER"
PATIENCE_SECONDS = 10.0  # for killed processes to go
KIND_SECONDS = 1.0  # for processes that are asked to go


def folder_mark(folder: Path) -> str:
    """Return what the marks of all workers of a folder begin with, however the folder is called or moved."""
    found = folder.stat()
    return f"{found.st_dev}-{found.st_ino}-"


def end_marked(mark: str) -> None:
    """Kill every other process whose mark begins so, and wait until they are gone.

    Args:
        mark: The whole mark of a worker, or `folder_mark`.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (found := _marked(mark)) and time.monotonic() < deadline:
        for process in found:
            with contextlib.suppress(psutil.Error):  # gone by itself, or not ours to end
                process.kill()
        time.sleep(0.01)


def end_children() -> None:
    """End what descends from this process: kindly, and by force what does not listen within a second."""
    children = _held()
    for process in children:
        with contextlib.suppress(psutil.Error):
            process.terminate()
            process.resume()
    if children and psutil.wait_procs(children, timeout=KIND_SECONDS)[1]:
        for process in _held():
            with contextlib.suppress(psutil.Error):
                process.kill()


def _held() -> list[psutil.Process]:
    """Stop all that descends from this process, so that none of it starts another, and return it."""
    held: list[psutil.Process] = []
    while new := [each for each in psutil.Process().children(recursive=True) if each not in held]:
        held += new
        for process in new:
            with contextlib.suppress(psutil.Error):
                if not _tidies_up(process):
                    process.suspend()
    return [each for each in held if not _tidies_up(each)]


def _tidies_up(process: psutil.Process) -> bool:
    """Whether it is Python's resource tracker, which removes what is shared when this process has ended."""
    try:
        return "resource_tracker" in " ".join(process.cmdline())
    except psutil.Error:  # gone
        return False


def _marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK, "").startswith(mark):
                found.append(process)
        except (psutil.Error, OSError):  # gone, a zombie, or another user's
            continue
    return found
