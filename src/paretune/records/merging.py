"""One study of parts that were run in different folders, on different machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from paretune.core.errors import RecordError
from paretune.records.study import CellRecord, StudyRecords

MUST_AGREE = ("tasks", "methods", "budget", "seeds", "preferences", "evaluation", "digests")


def merged(parts: Sequence[StudyRecords]) -> StudyRecords:
    """Return the records of one study of which each folder holds some finished cells.

    A cell that several folders finished is taken from the first.

    Args:
        parts: Records of the folders, at least one.

    Raises:
        RecordError: If they are not of the same study.
    """
    first = parts[0]
    for other in parts[1:]:
        different = [key for key in MUST_AGREE if other.resolved.get(key) != first.resolved.get(key)]
        if other.name != first.name or different:
            what = f"'{other.name}'" if other.name != first.name else f"other {different[0]}"
            raise RecordError(
                f"folders must hold parts of one study, got '{first.folder}' of '{first.name}' and '{other.folder}' "
                f"with {what}. Run all parts from the same study file."
            )
    best: dict[str, CellRecord] = {}
    for part in parts:
        for cell in part.cells:
            if cell.cell not in best or (best[cell.cell].state != "done" and _better(cell, best[cell.cell])):
                best[cell.cell] = cell
    timings = {(timing.task, timing.method): timing for part in reversed(parts) for timing in part.timings}
    return replace(
        first,
        folder=None,
        cells=tuple(best[cell.cell] for cell in first.cells),
        references={key: record for part in reversed(parts) for key, record in part.references.items()},
        truths={key: record for part in reversed(parts) for key, record in part.truths.items()},
        timings=tuple(timings.values()),
    )


def _better(cell: CellRecord, known: CellRecord) -> bool:
    """Whether a cell tells more than what is known of it: finished before failed before pending."""
    order = ("done", "failed", "pending")
    return order.index(cell.state) < order.index(known.state)
