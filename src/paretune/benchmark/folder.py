"""The folder of a study: where things lie, who may write, and whether it belongs to the study at hand."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from paretune.benchmark.executors.leftovers import end_marked, folder_mark
from paretune.benchmark.study import COPY, Study
from paretune.core.digests import digest
from paretune.core.disk_errors import explained
from paretune.core.errors import ConfigError, RecordError, StudyError, VersionError
from paretune.core.user_code import loaded_code, references_in
from paretune.records.files import settle_folders
from paretune.records.layout import TABLES, lock_path
from paretune.records.reading import read_lock
from paretune.tasks.strict_yaml import read_yaml

OURS_BEFORE_THE_LOCK = ("logs", COPY)  # written before study.lock.json, beside hidden files
LOCK = ".lock"
DYING_SECONDS = 5.0  # a child that a killed run has just forked holds its lock until it first runs


def settle(root: Path) -> None:
    """Bring back or remove what a killed run has left while it was putting a table in its place."""
    for name in TABLES:
        settle_folders(root / name)


def groups_folder(root: Path) -> Path:
    """Return where populations under way lie."""
    return root / "groups"


def default_folder(study: Study) -> Path:
    """Return where a study goes when nobody says."""
    return Path("results") / study.name


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


def check_folder(study: Study, root: Path) -> str:
    """Refuse a folder that holds another study; one that grew, or whose tasks and methods were edited, may go on.

    Returns:
        What has happened to its `study.lock.json`, which a run writes again; empty where that is whole or never was.

    Raises:
        StudyError: If the folder holds something else, or results that this study no longer asks for.
        VersionError: If another version of the library wrote it.
    """
    if root.is_file():
        raise StudyError(f"output folder must be a folder, got the file '{root}'. Choose another with -o.")
    names = {entry.name for entry in root.iterdir() if not entry.name.startswith(".")} if root.is_dir() else set()
    ours = names.issuperset((COPY,)) and not names.isdisjoint((*TABLES, "stages"))
    if not lock_path(root).is_file() and not ours:
        if names.difference(OURS_BEFORE_THE_LOCK):
            raise StudyError(
                f"output folder must be empty or hold this study, got '{root}' with other files. "
                "Choose another folder with -o."
            )
        return ""
    trouble = ""
    try:
        before = read_lock(root)
        difference = _difference(before.name, before.resolved, study)
    except VersionError:
        raise
    except RecordError:
        trouble = f"{lock_path(root).name} is {'damaged' if lock_path(root).exists() else 'gone'}"
        difference = _difference_of_copy(root / COPY, study)
    if difference:
        raise StudyError(
            f"output folder must hold this study or one it extends, got '{root}' with {difference}. "
            "Choose another folder with -o."
        )
    return trouble


def _difference_of_copy(copy: Path, study: Study) -> str:
    """Compare with what a study's copy calls itself, where that can be read: cells are found by their keys alone."""
    try:
        name = read_yaml(copy)[0].get("name", study.name)
    except (ConfigError, OSError):
        return ""
    return f"the study '{name}', not '{study.name}'" if name != study.name else ""


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
