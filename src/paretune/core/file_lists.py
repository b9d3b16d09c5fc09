"""Files that a path, a folder or a pattern names: regular ones, no results of ours, and not more than anybody means."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from paretune.core.checks import user_path
from paretune.core.errors import TaskError
from paretune.core.limits import MAX_LOOKED_AT, MAX_READ_BYTES, MAX_READ_FILES
from paretune.core.user_folders import INSTALLED

DEEP = "**"  # of a pattern: any number of folders
OF_RESULTS = frozenset({"DONE.json", "study.lock.json"})  # what a folder of results of ours holds
FEWER = "Name a smaller folder, or the files themselves."


@dataclass
class Tally:
    """Counts what several names amount to, and refuses too much.

    Attributes:
        looked_at: Files and folders that were looked at.
        files: Files that were named.
        size: Their bytes.
    """

    looked_at: int = 0
    files: int = 0
    size: int = 0

    def look(self, place: Path) -> Iterator[os.DirEntry[str]]:
        """Yield what a folder holds; nothing where it cannot be read."""
        with suppress(OSError), os.scandir(place) as entries:
            for entry in entries:
                self.looked_at += 1
                _check(place, "files and folders to look through", self.looked_at, MAX_LOOKED_AT)
                yield entry

    def add(self, file: str | Path) -> Path:
        """Count a file and return it."""
        self.files += 1
        with suppress(OSError):  # whoever reads it hears of what is wrong
            self.size += os.stat(file).st_size
        _check(file, "files to depend on", self.files, MAX_READ_FILES)
        _check(file, "bytes to depend on", self.size, MAX_READ_BYTES)
        return Path(file)


def _check(place: str | Path, what: str, got: int, most: int) -> None:
    if got > most:
        raise TaskError(f"{what} must be at most {most:,}, got more, the last in '{place}'. {FEWER}")


def matching(text: str, folder: Path, tally: Tally | None = None) -> list[Path]:
    """List the regular files that a path, a folder or a pattern such as `words/*.txt` names, from a folder.

    Args:
        text: The path or pattern.
        folder: Where it starts.
        tally: Counts over several calls.

    Raises:
        TaskError: If they are too many or too large.
        ConfigError: If it is no path.
    """
    if not text or "\0" in text:
        return []
    counted, named = tally or Tally(), user_path(text)
    place = folder / named
    if os.path.isfile(place):
        return [counted.add(place)]
    parts = named.parts
    plain = next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return files_below(folder.joinpath(*parts[:plain]), parts[plain:] or (DEEP,), counted)


def files_below(folder: Path, pattern: Sequence[str] = (DEEP,), tally: Tally | None = None) -> list[Path]:
    """List the regular files below a folder whose path, or a folder of theirs, fits a pattern.

    Hidden files and installed packages fit no wildcard, and folders of results are left out.

    Args:
        folder: The folder.
        pattern: Names or wildcards, one for each folder on the way.
        tally: Counts over several calls.

    Raises:
        TaskError: If they are too many or too large.
    """
    counted, end, found = tally or Tally(), len(pattern), list[Path]()
    waiting = [(folder, _with_skipped({0}, pattern))]
    while waiting:
        place, at = waiting.pop()
        entries = list(counted.look(place))
        if place != folder and OF_RESULTS.intersection(entry.name for entry in entries):
            continue
        for entry in entries:
            own = {each for each in at if each < end and pattern[each][0] == "."} if is_ignored(entry.name) else at
            stayed = {each for each in own if each == end or pattern[each] == DEEP}
            stepped = {each + 1 for each in own - stayed if fnmatchcase(entry.name, pattern[each])}
            now = _with_skipped(stepped if entry.is_symlink() and entry.is_dir() else stayed | stepped, pattern)
            if end in now and entry.is_file():
                found.append(counted.add(entry.path))
            elif now and entry.is_dir():  # a link to a folder may lead round, so `**` does not follow it
                waiting.append((Path(entry.path), now))
    return sorted(found)


def is_ignored(name: str) -> bool:
    """Tell whether a file or folder of this name is hidden, or comes by itself."""
    return name.startswith(".") or name == "__pycache__" or name in INSTALLED


def _with_skipped(at: set[int], pattern: Sequence[str]) -> set[int]:
    """Add to places in a pattern those behind a `**`, which may stand for nothing."""
    places = set(at)
    for index, part in enumerate(pattern):
        if index in places and part == DEEP:
            places.add(index + 1)
    return places
