"""A study without its texts: what comparing needs, from a study's folder or from one small file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from paretune.core.errors import RecordError
from paretune.records.files import AGAIN
from paretune.records.per_prompt import PerPrompt, blocks_of, read_with_shared, shared_of
from paretune.records.reading import task_from_plain
from paretune.records.study import StageRecord, StudyRecords, TaskInfo


@dataclass(frozen=True)
class CompactStudy:
    """What every policy of a study did on every test prompt, and what it cost.

    Attributes:
        name: Name of the study.
        tasks: Task name -> info.
        blocks: Finished cells in the order of the study, then base models, then best policies.
        stages: Key -> stage, of all finished cells.
        timings: Decoding times, as plain data of `TimingRecord`.
        environment: Versions and hardware.
        unfinished: Name of each planned cell that is not finished -> its task, method, budget, seed, state and reason.
    """

    name: str
    tasks: Mapping[str, TaskInfo]
    blocks: tuple[PerPrompt, ...]
    stages: Mapping[str, StageRecord]
    timings: tuple[Mapping[str, Any], ...]
    environment: Mapping[str, Any]
    unfinished: Mapping[str, Mapping[str, Any]]

    @property
    def cells(self) -> tuple[PerPrompt, ...]:
        """Its finished cells."""
        return tuple(block for block in self.blocks if block.kind == "cell")

    def instance(self, kind: str, task: str, seed: int) -> PerPrompt | None:
        """Return what the base model (`base`) or the best policies (`optimum`) do on a task instance."""
        found = (each for each in self.blocks if (each.kind, each.task, each.seed) == (kind, task, seed))
        return next(found, None)


def compact(study: StudyRecords) -> CompactStudy:
    """Return a study without its texts."""
    return _compact(shared_of(study), blocks_of(study))


def read_compact(path: Path) -> CompactStudy:
    """Read a file that `records.per_prompt.write_per_prompt` wrote.

    Raises:
        RecordError: If it is missing, damaged, no such file, or of an earlier version, which has too little in it.
    """
    shared, blocks = read_with_shared(path)
    if "tasks" not in shared:
        raise RecordError(
            f"{path} must hold tasks and digests of what it compares, got a file of an earlier version without them. "
            "Write it again with `paretune report DIR` from the study's folder."
        )
    try:
        return _compact(shared, blocks)
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"{path} must have all its fields, got trouble with {error}. {AGAIN}") from error


def _compact(shared: Mapping[str, Any], blocks: tuple[PerPrompt, ...]) -> CompactStudy:
    return CompactStudy(
        name=shared["study"],
        tasks={name: task_from_plain(info) for name, info in shared["tasks"].items()},
        blocks=blocks,
        stages={key: _stage(plain) for key, plain in shared["stages"].items()},
        timings=tuple(shared["timings"]),
        environment=shared["environment"],
        unfinished={each["cell"]: each for each in shared["unfinished"]},
    )


def _stage(plain: Mapping[str, Any]) -> StageRecord:
    """Return a stage from what JSON made of it; what a later version knows more of it is left out."""
    known = {each.name for each in fields(StageRecord)}
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}
    return StageRecord(**{name: value for name, value in values.items() if name in known})
