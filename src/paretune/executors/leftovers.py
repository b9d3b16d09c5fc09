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


def _marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK, "").startswith(mark):
                found.append(process)
        except (psutil.Error, OSError):  # gone, a zombie, or another user's
            continue
    return found
