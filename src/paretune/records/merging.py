"""One study of parts that were run in different folders, on different machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from paretune.core.errors import RecordError
from paretune.records.study import CellRecord, StudyRecords, TuningRecord

MUST_AGREE = (
    "tasks", "methods", "learner", "budget", "seeds", "preferences", "evaluation", "tune", "measurements", "digests",
)  # fmt: skip


def merged(parts: Sequence[StudyRecords]) -> StudyRecords:
    """Return the records of one study of which each folder holds some finished cells.

    A cell that several folders finished is taken from the first.

    Args:
        parts: Records of the folders, at least one.

    Raises:
        RecordError: If they are not of the same study, or tuning chose other settings in one than in another.
    """
    first = parts[0]
    for other in parts[1:]:
        different = [key for key in MUST_AGREE if other.resolved.get(key) != first.resolved.get(key)]
        if other.name != first.name or different:
            what = f"'{other.name}'" if other.name != first.name else _difference(different[0], first, other)
            advice = "Run all parts from the same study file."
            if other.name == first.name and different[0] == "digests":
                what = _changed(first, other)
                advice = "Run its cells again in one of the folders with the version used in the other."
            raise RecordError(
                f"folders must hold parts of one study, got '{first.folder}' of '{first.name}' and '{other.folder}' "
                f"with {what}. {advice}"
            )
    tuning = _tuning(parts)
    best: dict[tuple[object, ...], CellRecord] = {}
    for part in parts:
        for cell in part.cells:
            if _identity(cell) not in best or _better(cell, best[_identity(cell)]):
                best[_identity(cell)] = cell
    timings = {(timing.task, timing.method): timing for part in reversed(parts) for timing in part.timings}
    return replace(
        first,
        folder=None,
        cells=tuple(best[_identity(cell)] for cell in first.cells),
        references={key: record for part in reversed(parts) for key, record in part.references.items()},
        truths={key: record for part in reversed(parts) for key, record in part.truths.items()},
        timings=tuple(timings.values()),
        environment=_environments(parts),
        missing={name: why for name, why in first.missing.items() if all(name in part.missing for part in parts)},
        merged_from=tuple(str(part.folder) for part in parts),
        tuning=tuning,
    )


def _identity(cell: CellRecord) -> tuple[object, ...]:
    """Return what makes a cell the same in two folders; its name tells settings, which one may not have tuned yet."""
    return cell.task, cell.method, cell.budget_completions, cell.seed


def _tuning(parts: Sequence[StudyRecords]) -> tuple[TuningRecord, ...]:
    """Return the sweeps of all folders, each from the first that has it."""
    found: dict[tuple[str, str], TuningRecord] = {}
    for part in parts:
        for record in part.tuning:
            known = found.setdefault((record.task, record.method), record)
            if known.chosen != record.chosen:
                here, there = (
                    "none" if each.chosen is None else each.points[each.chosen].text for each in (known, record)
                )
                raise RecordError(
                    f"folders must have tuned alike, got {there} in place of {here} for method '{record.method}' on "
                    f"'{record.task}' in '{part.folder}'. Run all parts on machines of one kind, or in one folder."
                )
    return tuple(found.values())


def finished_twice(parts: Sequence[StudyRecords]) -> int:
    """Return how many cells several of the folders finished."""
    done = Counter(cell.cell for part in parts for cell in part.cells if cell.state == "done")
    return sum(folders > 1 for folders in done.values())


def _difference(key: str, first: StudyRecords, other: StudyRecords) -> str:
    """Name the first setting in which two folders differ, with both values."""
    path, here, there = key, first.resolved.get(key), other.resolved.get(key)
    while isinstance(here, Mapping) and isinstance(there, Mapping):
        name = next(name for name in [*here, *there] if here.get(name) != there.get(name))
        path, here, there = f"{path}.{name}", here.get(name), there.get(name)
    shown = ["none" if value is None else str(value) for value in (here, there)]
    return f"another {path}: {shown[1]} in place of {shown[0]}"


def _changed(first: StudyRecords, other: StudyRecords) -> str:
    """Name the tasks and methods that differ between two folders of a study."""
    digests: list[Any] = [part.resolved.get("digests") or {} for part in (first, other)]
    names = [
        f"{noun} '{name}'"
        for noun, kind in (("task", "tasks"), ("method", "methods"))
        for known, found in [[each.get(kind, {}) for each in digests]]
        for name in sorted({*known, *found})
        if known.get(name) != found.get(name)
    ]
    return f"another version of {', '.join(names)}"


def _environments(parts: Sequence[StudyRecords]) -> dict[str, object]:
    """Return what the folders ran on: by key their one value, or all that differ."""
    found = {}
    for key in dict.fromkeys(key for part in parts for key in part.environment):
        values = list(dict.fromkeys(part.environment.get(key, "") for part in parts))
        found[key] = values[0] if len(values) == 1 else " | ".join(str(value) or "none" for value in values)
    return found


def _better(cell: CellRecord, known: CellRecord) -> bool:
    """Whether a cell tells more than what is known of it: finished before failed before pending."""
    order = ("done", "failed", "pending")
    return order.index(cell.state) < order.index(known.state)
