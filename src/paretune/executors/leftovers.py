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
    children = psutil.Process().children(recursive=True)
    for process in children:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    for process in psutil.wait_procs(children, timeout=KIND_SECONDS)[1] if children else ():
        with contextlib.suppress(psutil.Error):
            if "resource_tracker" not in " ".join(process.cmdline()):  # it tidies up when this process has ended
                process.kill()


def _marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK, "").startswith(mark):
                found.append(process)
        except (psutil.Error, OSError):  # gone, a zombie, or another user's
            continue
    return found
