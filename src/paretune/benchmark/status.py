"""Where a study stands, from its files alone: what is done, what runs now, what failed. Nothing is written."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from paretune.benchmark.changes import finished_tables
from paretune.benchmark.heartbeat import FILE, NOTE_SECONDS, Note, is_alive
from paretune.benchmark.progress import Progress, Running
from paretune.core.errors import RecordError
from paretune.records.files import DONE, FAILED, read_json
from paretune.records.layout import cell_folder
from paretune.records.reading import read_lock
from paretune.report.wording import count, number, seconds

State = Literal["running", "finished", "ended", "stopped"]
OUT_OF_REACH_SECONDS = 60.0  # of silence, after which a process of another machine counts as stopped
SHOWN = 5  # errors


@dataclass(frozen=True)
class Trouble:
    """Something that failed.

    Attributes:
        what: The cell, or the table's folder.
        reason: One of the fixed list; empty where none was recorded.
        message: What was said.
        file: The file that says so.
        log: What workers printed last; empty where they have no log.
    """

    what: str
    reason: str
    message: str
    file: str
    log: str


@dataclass(frozen=True)
class Status:
    """Where a study stands.

    Attributes:
        folder: Its folder.
        name: Its name.
        state: `running`; `finished`, with all cells done; `ended`, where the last call did all that it could and cells
            are left, of another part or failed; `stopped`, where it was interrupted or its process has died.
        cells: How many cells are `done`, `running`, `pending`, `failed`.
        now: What is under way; nothing unless it runs.
        tuning: Trials of the sweep that are done, and all of them, while settings are tried; else None.
        completions: Made by the last call, and the most that it is to make; None before it has said so.
        per_second: Completions per second over the last half minute; None unless it runs and that is known.
        minutes_left: Least and most, at the speed of the last half minute and of the whole call; None likewise.
        age_seconds: Since the last sign of life; None where there is none.
        process: Number and machine of the process of the last call; empty where that is not known.
        errors: The last things that failed, the latest first.
    """

    folder: Path
    name: str
    state: State
    cells: Mapping[str, int]
    now: tuple[Running, ...]
    tuning: tuple[int, int] | None
    completions: tuple[int, int] | None
    per_second: float | None
    minutes_left: tuple[float, float] | None
    age_seconds: float | None
    process: str
    errors: tuple[Trouble, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing has failed, and nothing has stopped before its end."""
        return self.state != "stopped" and not self.errors

    def plain(self) -> dict[str, object]:
        """Return plain data."""
        return {**asdict(self), "folder": str(self.folder)}


def status(folder: str | Path) -> Status:
    """Say where a study stands.

    Whether a cell is done is told by its markers; whether its files are whole, `paretune plan` checks.

    Args:
        folder: The study's folder.

    Raises:
        RecordError: If the folder is no study.
    """
    root = Path(folder)
    planned = read_lock(root)
    note = _note(root)
    progress = None if note is None else note.progress
    alive = note is not None and note.state == "running" and _is_alive(note)
    running = progress if alive else None
    now = () if running is None else running.jobs
    busy = {cell for job in now for cell in job.cells}
    states = {cell.cell: _state(root, cell.cell, busy) for cell in planned.cells}
    cells = {state: list(states.values()).count(state) for state in ("done", "running", "pending", "failed")}
    folders = {f"runs/{name}": name for name, state in states.items() if state == "failed"}
    folders |= {table.folder: table.folder for table in planned.tables if not table.stages}
    if alive:
        state: State = "running"
    elif cells["done"] == len(states):
        state = "finished"
    else:
        state = "ended" if note is not None and note.state == "ended" else "stopped"
    return Status(
        root, planned.name, state, cells, now,
        None if running is None or running.noun == "cells" else (running.done, running.cells),
        None if progress is None else (progress.completions, progress.total_completions),
        None if running is None else running.rate, None if running is None else _minutes_left(running),
        None if note is None else max(0.0, time.time() - note.noted),
        "" if note is None else f"{note.process} on {note.host}", tuple(_errors(root, folders)),
    )  # fmt: skip


def status_text(found: Status) -> str:
    """Return where a study stands as text."""
    lines = [f"{found.folder}: {_state_text(found)}"]
    counts = [f"{amount} {state}" for state, amount in found.cells.items() if amount or state == "done"]
    lines.append(f"cells: {', '.join(counts)} of {sum(found.cells.values())}")
    if found.tuning is not None:
        lines.append(f"tuning: {found.tuning[0]} of {count(found.tuning[1], 'trial')} done, before any cell")
    if found.completions is not None:
        parts = [f"completions: {found.completions[0]:,} of at most {found.completions[1]:,} in this call"]
        if found.per_second is not None:
            parts.append(f"{number(found.per_second)} a second")
        if found.state == "running":
            parts.append(_left(found.minutes_left))
        lines.append(", ".join(parts))
    for job in found.now:
        of = f" of {job.planned_completions:,}" if job.planned_completions else ""
        lines.append(
            f"now: {job.kind} of {_cells(job.cells, job.name)}: {job.completions:,}{of} completions in "
            f"{seconds(job.seconds)}, last heard of {seconds(job.silent_seconds)} ago"
        )
    for each in found.errors[:SHOWN]:
        more = f"; {each.log}" if each.log else ""
        lines += [f"failed: {each.what}{each.reason and f' ({each.reason})'}: {each.message}", f"  {each.file}{more}"]
    if len(found.errors) > SHOWN:
        lines.append(f"and {len(found.errors) - SHOWN} more failed")
    if found.state == "stopped":
        lines.append("run the same command again to go on")
    return "\n".join(lines)


def _state_text(found: Status) -> str:
    age = "" if found.age_seconds is None else f"last sign of life {seconds(found.age_seconds)} ago"
    process = f"process {found.process}" if found.process else ""
    known = ", ".join(each for each in (process, age) if each)
    words = {"ended": "ended with cells left", "stopped": "stopped before its end"}
    return f"{words.get(found.state, found.state)}{known and f' ({known})'}"


def _cells(names: Sequence[str], job: str) -> str:
    return f"{names[0]}{f' and {len(names) - 1} more' * (len(names) > 1)}" if names else job


def _left(minutes: tuple[float, float] | None) -> str:
    if minutes is None:
        return "time left not measured yet"
    low, high = (max(1, round(each)) for each in minutes)
    return f"{low} to {high} minutes left" if low < high else f"about {count(low, 'minute')} left"


def _note(root: Path) -> Note | None:
    """Return what the last call has noted; None where nothing can be read, or another version wrote it otherwise."""
    try:
        return TypeAdapter(Note).validate_python(read_json(root / FILE))
    except (RecordError, ValidationError):
        return None


def _is_alive(note: Note) -> bool:
    if note.host == platform.node():
        return is_alive(note.process, note.process_began)
    return time.time() - note.noted < max(OUT_OF_REACH_SECONDS, 3 * NOTE_SECONDS)


def _state(root: Path, cell: str, busy: set[str]) -> str:
    folder = cell_folder(root, cell)
    if all((each / DONE).exists() for each in finished_tables(folder)):
        return "done"
    if cell in busy:
        return "running"
    return "failed" if (folder / FAILED).exists() else "pending"


def _minutes_left(progress: Progress) -> tuple[float, float] | None:
    if progress.seconds_left is None or not progress.rate or not progress.mean_rate:  # too little was measured
        return None
    left = max(0, progress.total_completions - progress.not_needed - progress.completions)
    low, high = sorted(left / rate / 60 for rate in (progress.rate, progress.mean_rate))
    return low, high


def _errors(root: Path, folders: Mapping[str, str]) -> Iterator[Trouble]:
    """Yield what failed in some folders, the latest first."""
    log = max((root / "logs").glob("*.log"), key=lambda path: path.stat().st_mtime, default=None)
    found = [(path.stat().st_mtime, path, what) for folder, what in folders.items()
             if (path := root / folder / FAILED).is_file() and not (root / folder / DONE).exists()]  # fmt: skip
    for _, path, what in sorted(found, key=lambda each: -each[0]):
        try:
            said = read_json(path)
            reason, message = str(said["reason"] or ""), str(said["message"])
        except (RecordError, KeyError, TypeError):
            reason, message = "", f"{FAILED} is damaged"
        where = path.relative_to(root).as_posix()
        yield Trouble(what, reason, message, where, "" if log is None else log.relative_to(root).as_posix())
