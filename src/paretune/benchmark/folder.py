"""The folder of a study: where things lie, who may write, and whether it belongs to the study at hand."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paretune.benchmark.study import Study
from paretune.core.digests import digest
from paretune.core.errors import StudyError
from paretune.core.user_code import loaded_code, references_in
from paretune.records.layout import lock_path
from paretune.records.reading import read_lock

OURS_BEFORE_THE_LOCK = ("logs", "study.yaml")  # written before study.lock.json, beside hidden files
ORPHAN_SECONDS = 60.0  # workers of a killed run notice within moments; an update under way may take longer


def groups_folder(root: Path) -> Path:
    """Return where populations under way lie."""
    return root / "groups"


def log_path(root: Path, worker: int) -> Path:
    """Return what a worker printed."""
    return root / "logs" / f"worker-{worker}.log"


def default_folder(study: Study) -> Path:
    """Return where a study goes when nobody says."""
    return Path("results") / study.name


@contextmanager
def locked(root: Path, shown: Path | None = None) -> Iterator[int]:
    """Hold a folder against other processes; yield the file descriptor that holds it.

    Worker processes inherit the descriptor, so the folder is free only when the last of them is gone.

    Args:
        root: The folder that gets the lock file.
        shown: What the user calls it, where that is another folder.

    Raises:
        StudyError: If another process works on it.
    """
    root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _acquire(descriptor, shown or root)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, shown: Path) -> None:
    deadline = time.monotonic() + ORPHAN_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode() or "0"
        if _alive(int(holder)) or time.monotonic() > deadline:
            raise StudyError(
                f"output folder must be used by one process at a time, got '{shown}', which process {holder} is "
                "working on. Wait for it, or choose another folder with -o."
            )
        time.sleep(0.05)  # only workers of a killed run hold it: they are about to notice and leave


def _alive(process: int) -> bool:
    if process == 0:  # the holder has not written its number yet, so it has just begun
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def digests(study: Study) -> dict[str, dict[str, str]]:
    """Digest the tasks and methods of a study: folders whose reports are merged must agree on them."""
    tried = {} if study.tune is None else study.tune.settings
    return {
        "tasks": {task.name: digest(task.training_key()) for task in study.tasks},
        "methods": {
            entry.label: digest(
                [entry.source, entry.version, dict(entry.settings), loaded_code(references_in([entry.settings, tried]))]
            )
            for entry in study.methods
        },
    }


def check_folder(study: Study, root: Path) -> None:
    """Refuse a folder that holds another study; one that grew, or whose tasks and methods were edited, may go on.

    Raises:
        StudyError: If the folder holds something else, or results that this study no longer asks for.
    """
    if root.is_file():
        raise StudyError(f"output folder must be a folder, got the file '{root}'. Choose another with -o.")
    if not lock_path(root).is_file():
        if root.is_dir() and any(
            entry.name not in OURS_BEFORE_THE_LOCK and not entry.name.startswith(".") for entry in root.iterdir()
        ):
            raise StudyError(
                f"output folder must be empty or hold this study, got '{root}' with other files. "
                "Choose another folder with -o."
            )
        return
    before = read_lock(root)
    difference = _difference(before.name, before.resolved, study)
    if difference:
        raise StudyError(
            f"output folder must hold this study or one it extends, got '{root}' with {difference}. "
            "Choose another folder with -o."
        )


def _difference(name: str, before: Mapping[str, Any], study: Study) -> str:
    if name != study.name:
        return f"the study '{name}', not '{study.name}'"
    for noun, old, new in (
        ("task", before["digests"]["tasks"], [task.name for task in study.tasks]),
        ("method", before["digests"]["methods"], [entry.label for entry in study.methods]),
        ("budget", before["budget"]["completions"], study.budgets),
        ("seed", before["seeds"], study.seeds),
    ):
        gone = [value for value in old if value not in new]
        if gone:
            return f"results of {noun} {gone[0]!r}, which the study no longer names"
    for key, value in (("grid", study.grid), ("unseen", study.unseen)):
        if value < before["preferences"][key]:
            return f"preferences.{key} {before['preferences'][key]}, more than the {value} of the study"
    return ""
