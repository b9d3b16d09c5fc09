"""What a plan is made of and what a run leaves: plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, Literal

from paretune.benchmark.changes import Identity
from paretune.benchmark.study import Study
from paretune.core.digests import digest
from paretune.core.preferences import FloatArray
from paretune.core.protocols import MetricRow, Table
from paretune.core.task import Task
from paretune.methods.entries import MethodEntry
from paretune.records.layout import cell_folder, evaluations_folder, tuning_folder
from paretune.records.study import CellRecord, StudyRecords, TuningRecord
from paretune.records.tables import Found
from paretune.tasks.checks import first_input
from paretune.training.groups import PlannedStage

State = Literal["finished", "new", "unfinished", "stale", "failed"]
NAMES = "cell:name task:task.name method:entry.label budget_completions:budget seed"  # what names a cell, see `picked`
Speed = Literal["measured", "partly measured", "assumed"]
SPEEDS: Final[tuple[Speed, ...]] = ("measured", "partly measured", "assumed")


@dataclass(frozen=True)
class PlannedCell:
    """One method on one task at one budget with one seed.

    Attributes:
        name: Its folder.
        entry: Its method.
        task: Its task instance.
        budget: Completions it may use.
        seed: Its seed.
        stages: Keys of all stages it uses, needs first.
        charged: Completions of those stages, shared or not.
        policies: Experts that its stages train, those of a bank too; what other stages leave is not known before.
        training_preferences: Preferences its method is given, `[M, K]`.
        preferences: All preferences evaluated.
        training_key: What its training depends on.
        made_of: What its training depends on, part by part.
        state: `finished`, `failed`, `unfinished`, `stale` (finished before an edit) or `new`.
        reason: Why it is not finished, where there is more to say.
        rescored: Whether its completions are stored, and only to be scored again.
        damaged: Whether a file of its own, or of its evaluations, is not as it was written; `reason` says which.
        point: Position in the grid of a sweep, for one of its trials; None for a cell that is reported.
        tried: The settings of that point as JSON; empty for a cell that is reported.
        settled: Whether its settings are final; else a sweep is still to choose them, and these are the defaults.
    """

    name: str
    entry: MethodEntry
    task: Task
    budget: int
    seed: int
    stages: tuple[str, ...]
    charged: int
    policies: int
    training_preferences: FloatArray
    preferences: FloatArray
    training_key: str
    made_of: Mapping[str, object]
    state: State
    reason: str = ""
    rescored: bool = False
    damaged: bool = False
    point: int | None = None
    tried: str = ""
    settled: bool = True

    @property
    def identity(self) -> Identity:
        """Return what it is asked for as, whatever it is made of."""
        return self.task.name, self.entry.label, self.budget, self.seed, self.tried

    @property
    def folder(self) -> str:
        """Where it lies in the study's folder."""
        return (cell_folder if self.point is None else tuning_folder)(Path(), self.name).as_posix()

    @property
    def table(self) -> str:
        """Where the table lies that finishes it."""
        return self.folder if self.point is not None else evaluations_folder(Path(), self.name).as_posix()

    @property
    def key(self) -> str:
        """Digest of what its solution set depends on."""
        return digest([self.training_key, self.training_preferences.tolist()])

    @property
    def answered(self) -> dict[str, object]:
        """What its policies depend on, and what they answer."""
        return picked(self, "training:training_key training_preferences preferences")

    def plain(self) -> dict[str, object]:
        """Return all that names it and that it is made of, for JSON; `CellRecord` is a part of it."""
        method = "family:entry.method.family source:entry.source settings:entry.kept"
        return picked(self, f"{NAMES} tried {method} training_preferences training_key key stages made_of")


@dataclass(frozen=True)
class PlannedTable:
    """What a measurement is to leave.

    Attributes:
        table: The table.
        found: What lies there.
        rescored: Whether the completions in it are those wanted, and only to be scored again.
        reason: Why it is not finished, where something is there.
    """

    table: Table
    found: Found
    rescored: bool = False
    reason: str = ""

    @property
    def finished(self) -> bool:
        """Whether it is there, as it was sealed and for its key."""
        return self.found.state == "finished"

    @property
    def completions(self) -> int:
        """Completions it still takes, at most."""
        return 0 if self.finished or self.rescored else self.table.completions


@dataclass(frozen=True)
class Plan:
    """What running a study would do.

    Attributes:
        study: The study.
        folder: Where it goes.
        cells: All cells.
        stages: All stages, needs first.
        tables: All that is to be measured on them, and on base models.
        workers: Worker processes it would start.
        completions_to_train: Completions still to be made in training.
        minutes: Between how many and how many are left, tuning included.
        speed: Whether the speeds behind them were measured, here or on finished stages of this folder.
        sweep: The plan of tuning, whose cells come first and are in no report; None where nothing is tuned.
        tuned: What finished sweeps have chosen.
        trouble: What has happened to `study.lock.json`; empty where it is whole.
    """

    study: Study
    folder: Path
    cells: tuple[PlannedCell, ...]
    stages: tuple[PlannedStage, ...]
    tables: tuple[PlannedTable, ...]
    workers: int
    completions_to_train: int
    minutes: tuple[float, float] = (0.0, 0.0)
    speed: Speed = "measured"
    sweep: Plan | None = None
    tuned: tuple[TuningRecord, ...] = ()
    trouble: str = ""

    @cached_property
    def by_key(self) -> Mapping[str, PlannedStage]:
        """The stages by their keys."""
        return {each.key: each for each in self.stages}

    @property
    def tasks(self) -> list[Task]:
        """The study's tasks that it has cells of: a part may leave some out."""
        names = {cell.task.name for cell in self.cells}
        return [task for task in self.study.tasks if task.name in names]

    @property
    def completions_charged(self) -> int:
        """Completions charged to all cells together, shared stages once for each."""
        return sum(cell.charged for cell in self.cells)

    @property
    def completions_to_evaluate(self) -> int:
        """Completions still to be made in measuring, charged to nobody."""
        return sum(each.completions for each in self.tables)

    def count(self, state: State) -> int:
        """Return the number of cells in a state."""
        return sum(cell.state == state for cell in self.cells)

    def plain(self) -> dict[str, object]:
        """Return plain data for JSON."""
        of_cell = f"{NAMES} state reason stages completions_charged:charged policies"
        of_stage = "key kind:stage.kind member:stage.member seed:stage.seed completions:stage.completions state"
        counts = "workers completions_charged completions_to_train completions_to_evaluate speed"
        return {
            "study": self.study.name,
            "folder": str(self.folder),
            "cells": [picked(cell, of_cell) for cell in self.cells],
            "stages": [{**picked(each, of_stage), "cells": len(each.cells)} for each in self.stages],
            "inputs": [found for task in self.tasks if (found := first_input(task))],
            **picked(self, counts),
            "minutes": [round(each, 1) for each in self.minutes],
            "tuning": None if self.sweep is None else self._plain_tuning(self.sweep),
        }

    def _plain_tuning(self, sweep: Plan) -> dict[str, object]:
        return {
            "cells": [picked(cell, "cell:name point seed state reason") for cell in sweep.cells],
            **picked(sweep, "completions_to_train completions_to_evaluate"),
            "chosen": [
                {"task": each.task, "method": each.method, "settings": dict(each.points[each.chosen].settings)}
                for each in self.tuned
                if each.chosen is not None
            ],
        }


def picked(each: object, names: str) -> dict[str, object]:
    """Return attributes as plain data, by their names or as `name:path.to.attribute`."""
    found: dict[str, Any] = {}
    for name in names.split():
        key, _, path = name.partition(":")
        value = attrgetter(path or key)(each)
        found[key] = (
            value.tolist() if hasattr(value, "tolist") else dict(value) if isinstance(value, Mapping) else value
        )
    return found


@dataclass(frozen=True)
class StudyResult:
    """What a run leaves.

    Attributes:
        folder: The study's folder.
        page: The report, one offline HTML file.
        records: Everything measured.
        problems: What failed beyond cells, such as timing; cells say so themselves.
        asked: Names of the cells that this call was to finish; None for all.
        measured: What the metrics say of the records; None where they were not asked.
    """

    folder: Path
    page: Path
    records: StudyRecords
    problems: tuple[str, ...] = ()
    asked: frozenset[str] | None = None
    measured: Sequence[MetricRow] | None = None

    @property
    def failed(self) -> tuple[CellRecord, ...]:
        """Cells that were to be finished and are not."""
        asked = [cell for cell in self.records.cells if self.asked is None or cell.cell in self.asked]
        return tuple(cell for cell in asked if cell.state != "done")

    @property
    def complete(self) -> bool:
        """Whether every cell that was asked for is done and nothing else failed."""
        return not self.failed and not self.problems
