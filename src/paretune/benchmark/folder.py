"""The folder of a study: where things lie, who may write, and whether it belongs to the study at hand."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from paretune.benchmark.heartbeat import FILE as NOTES
from paretune.benchmark.study import COPY, Study
from paretune.core.digests import digest
from paretune.core.errors import ConfigError, RecordError, StudyError, VersionError
from paretune.core.user_code import loaded_code, references_in
from paretune.records.files import settle_folders
from paretune.records.layout import TABLES, lock_path
from paretune.records.reading import read_lock
from paretune.tasks.strict_yaml import read_yaml

PARENTS = (*TABLES, "stages", "groups")  # whose entries are folders
ASIDE = "aside"  # folder for what is none of ours
FOLDERS = (*PARENTS, "logs", "report")
OUR_FILES = (COPY, "index.html", "events.jsonl")
OUR_ENDINGS = (".json", ".parquet", ".safetensors")  # of no folder of ours
OURS_BEFORE_THE_LOCK = ("logs", COPY, NOTES)  # written before study.lock.json, beside hidden files


def settle(root: Path) -> list[str]:
    """Bring back or remove what a killed run has left while it was putting a table in its place.

    Returns:
        What lay in the place of a file or folder of ours, and was put aside; a line each.
    """
    said = []
    for path, noun in _misplaced(root):
        name = path.relative_to(root).as_posix()
        (root / ASIDE).mkdir(exist_ok=True)
        flat = name.replace("/", "-")
        names = (f"{ASIDE}/{flat}{f'.{number}' * bool(number)}" for number in itertools.count())
        aside = next(each for each in names if not os.path.lexists(root / each))
        os.rename(path, root / aside)
        said.append(f"damaged: {name} is no {noun}. It is put aside as {aside}.")
    for name in TABLES:
        settle_folders(root / name)
    return said


def _misplaced(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield what lies in the place of a file or folder of ours, and which of the two should."""
    for name in FOLDERS:
        if os.path.lexists(root / name) and not (root / name).is_dir():
            yield root / name, "folder"
    for name in PARENTS:
        for path in [*(root / name).glob("*")]:
            if not path.is_dir():
                yield path, "folder"
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if Path(folder, name) != root / ASIDE]
        entries = () if Path(folder).parent == root and Path(folder).name in PARENTS else (*names, *files)
        for path in (Path(folder) / name for name in entries):
            if (path.name in OUR_FILES or path.suffix in OUR_ENDINGS) and not path.is_file():
                yield path, "file"


def default_folder(study: Study) -> Path:
    """Return where a study goes when nobody says."""
    return Path("results") / study.name


def digests(study: Study) -> dict[str, dict[str, str]]:
    """Digest the tasks and methods of a study: folders whose reports are merged must agree on them."""
    tried = {} if study.tune is None else study.tune.settings
    return {
        "tasks": {task.name: digest(task.training_key()) for task in study.tasks},
        "methods": {
            entry.label: digest(
                [entry.source, entry.version, dict(entry.kept), loaded_code(references_in([entry.settings, tried]))]
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
    unseen = before["preferences"]["unseen"]
    if study.unseen < unseen:
        return f"preferences.unseen {unseen}, more than the {study.unseen} of the study"
    return study.wanted.lost(before["preferences"])
