"""What a plan is made of and what a run leaves: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from paretune.benchmark.changes import Identity
from paretune.benchmark.entries import MethodEntry
from paretune.benchmark.study import Study
from paretune.core.preferences import FloatArray
from paretune.core.stages import Stage
from paretune.core.task import Task
from paretune.records.study import CellRecord, StudyRecords, TuningRecord

State = Literal["finished", "new", "unfinished", "stale", "failed"]
Speed = Literal["measured", "partly measured", "assumed"]
SPEEDS: Final[tuple[Speed, ...]] = ("measured", "partly measured", "assumed")


@dataclass(frozen=True)
class PlannedStage:
    """A stage of the study, once, however many cells use it.

    Attributes:
        key: Its digest.
        stage: The stage.
        task: Task instance it trains on.
        seed: Seed that names the instance.
        state: `finished`, `unfinished` (a killed run was at it) or `new`.
        cells: Names of the cells that use it.
        missing: Completions still to be made for it, beyond what a finished shorter run saves.
    """

    key: str
    stage: Stage
    task: Task
    seed: int
    state: State
    cells: tuple[str, ...]
    missing: int


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
        evaluation_key: What evaluation adds.
        made_of: What its training depends on, part by part.
        state: `finished`, `failed`, `unfinished`, `stale` (finished before an edit) or `new`.
        reason: Why it is not finished, where there is more to say.
        rescored: Whether its completions are stored, and only to be scored again.
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
    evaluation_key: str
    made_of: Mapping[str, object]
    state: State
    reason: str = ""
    rescored: bool = False
    point: int | None = None
    tried: str = ""
    settled: bool = True

    @property
    def identity(self) -> Identity:
        """Return what it is asked for as, whatever it is made of."""
        return self.task.name, self.entry.label, self.budget, self.seed, self.tried


@dataclass(frozen=True)
class Plan:
    """What running a study would do.

    Attributes:
        study: The study.
        folder: Where it goes.
        cells: All cells.
        stages: All stages, needs first.
        references: (task, seed) whose base model is still to be evaluated.
        workers: Worker processes it would start.
        completions_charged: Completions charged to all cells together, shared stages once for each.
        completions_to_train: Completions still to be made in training.
        completions_to_evaluate: Completions still to be made in evaluation, charged to nobody.
        minutes: Between how many and how many are left, tuning included.
        speed: Whether the speeds behind them were measured, here or on finished stages of this folder.
        sweep: The plan of tuning, whose cells come first and are in no report; None where nothing is tuned.
        tuned: What finished sweeps have chosen.
    """

    study: Study
    folder: Path
    cells: tuple[PlannedCell, ...]
    stages: tuple[PlannedStage, ...]
    references: tuple[tuple[str, int], ...]
    workers: int
    completions_charged: int
    completions_to_train: int
    completions_to_evaluate: int
    minutes: tuple[float, float] = (0.0, 0.0)
    speed: Speed = "measured"
    by_key: Mapping[str, PlannedStage] = field(repr=False, default_factory=dict)
    sweep: Plan | None = None
    tuned: tuple[TuningRecord, ...] = ()

    def count(self, state: State) -> int:
        """Return the number of cells in a state."""
        return sum(cell.state == state for cell in self.cells)

    def plain(self) -> dict[str, object]:
        """Return plain data for JSON."""
        return {
            "study": self.study.name,
            "folder": str(self.folder),
            "cells": [
                {
                    "cell": cell.name,
                    "task": cell.task.name,
                    "method": cell.entry.label,
                    "budget_completions": cell.budget,
                    "seed": cell.seed,
                    "state": cell.state,
                    "reason": cell.reason,
                    "stages": list(cell.stages),
                    "completions_charged": cell.charged,
                    "policies": cell.policies,
                }
                for cell in self.cells
            ],
            "stages": [
                {
                    "key": planned.key,
                    "kind": planned.stage.kind,
                    "member": dict(planned.stage.member),
                    "seed": planned.stage.seed,
                    "completions": planned.stage.completions,
                    "state": planned.state,
                    "cells": len(planned.cells),
                }
                for planned in self.stages
            ],
            "workers": self.workers,
            "completions_charged": self.completions_charged,
            "completions_to_train": self.completions_to_train,
            "completions_to_evaluate": self.completions_to_evaluate,
            "minutes": [round(each, 1) for each in self.minutes],
            "speed": self.speed,
            "tuning": None if self.sweep is None else self._plain_tuning(self.sweep),
        }

    def _plain_tuning(self, sweep: Plan) -> dict[str, object]:
        return {
            "cells": [
                {"cell": cell.name, "point": cell.point, "seed": cell.seed, "state": cell.state, "reason": cell.reason}
                for cell in sweep.cells
            ],
            "completions_to_train": sweep.completions_to_train,
            "completions_to_evaluate": sweep.completions_to_evaluate,
            "chosen": [
                {"task": each.task, "method": each.method, "settings": dict(each.points[each.chosen].settings)}
                for each in self.tuned
                if each.chosen is not None
            ],
        }


@dataclass(frozen=True)
class StudyResult:
    """What a run leaves.

    Attributes:
        folder: The study's folder.
        page: The report, one offline HTML file.
        records: Everything measured.
        problems: What failed beyond cells, such as timing; cells say so themselves.
        asked: Names of the cells that this call was to finish; None for all.
    """

    folder: Path
    page: Path
    records: StudyRecords
    problems: tuple[str, ...] = ()
    asked: frozenset[str] | None = None

    @property
    def failed(self) -> tuple[CellRecord, ...]:
        """Cells that were to be finished and are not."""
        asked = [cell for cell in self.records.cells if self.asked is None or cell.cell in self.asked]
        return tuple(cell for cell in asked if cell.state != "done")

    @property
    def complete(self) -> bool:
        """Whether every cell that was asked for is done and nothing else failed."""
        return not self.failed and not self.problems
