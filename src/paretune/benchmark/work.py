"""What a call of `run` has to do: stages in populations, then tables; and what becomes of each job when it ends."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field

from paretune.benchmark.estimates import missing_completions
from paretune.benchmark.measurements import load_measurement
from paretune.benchmark.measuring import table_payload
from paretune.benchmark.planned import Plan, PlannedCell, PlannedTable
from paretune.benchmark.tuning import mark_tuning_failed, why_untuned
from paretune.core.feedback import feedback_of
from paretune.core.protocols import Measurement, Table
from paretune.core.task import Task
from paretune.executors import Job
from paretune.executors.cores import worker_threads
from paretune.executors.environment import environment
from paretune.records.files import DONE, FAILED, is_done, mark_failed
from paretune.records.layout import cell_folder, stage_folder
from paretune.records.study import CellRecord, FailureReason
from paretune.records.writing import write_cell
from paretune.training.groups import (
    Group,
    PlannedStage,
    begin_group,
    begun_groups,
    needs,
    populations,
    read_spent,
    trajectories,
)
from paretune.training.stages import task_payload

TRAIN, MEASURE = "paretune.training.stages:run_stages", "paretune.benchmark.measuring:measure"
SHARED_REASONS = ("task_error", "model_error")  # failures that hit every member of a population alike


@dataclass
class PlannedJob:
    """A job, and what it is for.

    Attributes:
        kind: `training`, or the name of a measurement.
        job: What the executor is given.
        group: The population it trains, if any.
        planned: The table it makes, if any.
        cells: Names of the cells it is done for.
        left: Completions the plan counts for it that have not been heard of.
    """

    kind: str
    job: Job
    group: Group | None = None
    planned: PlannedTable | None = None
    cells: frozenset[str] = field(default_factory=frozenset)
    left: int = 0


def cell_record(cell: PlannedCell) -> CellRecord:
    """Return what names a cell, before anything has run."""
    return CellRecord(
        cell.name, cell.task.name, cell.entry.label, cell.entry.method.family, cell.budget, cell.seed, "pending",
        feedback=feedback_of(cell.entry.settings),
    )  # fmt: skip


class Work:
    """What is missing of a study, or of its sweep, and what has failed.

    Attributes:
        problems: What failed beyond cells.
        failed_cells: Names of the cells that failed in this call.
        done_cells: How many cells are finished.
        tuning: Whether these are the trials of a sweep.
    """

    def __init__(self, planned: Plan, say: Callable[[str], None]) -> None:
        self.problems: list[str] = []
        self.failed_cells: list[str] = []
        self.done_cells = planned.count("finished")
        self.tuning = any(cell.point is not None for cell in planned.cells)
        self._say = say
        self._plan = planned
        self._study = planned.study
        self._root = planned.folder
        self._finished = {each.key for each in planned.stages if each.state == "finished"}
        self._failed_stages: dict[str, tuple[FailureReason, str]] = {}
        self._again: list[PlannedJob] = []  # what ran them died
        self._tried_again: set[str] = set()
        self._by_name = {cell.name: cell for cell in planned.cells}
        unfinished = {cell.table: cell for cell in planned.cells if cell.state != "finished" and cell.settled}
        self._evaluated = {cell.name for cell in planned.cells if cell.state == "finished"}
        unsettled = {cell.name for cell in planned.cells if not cell.settled}
        self._tables = [
            each
            for each in planned.tables
            if (not each.finished or each.table.folder in unfinished) and not unsettled.intersection(each.table.cells)
        ]
        self._measurements = {
            name: load_measurement(name) for name in {each.table.measurement for each in self._tables}
        }
        wanted = {key for cell in unfinished.values() for key in cell.stages}
        waiting = {each.key: each for each in planned.stages if each.state != "finished" and each.key in wanted}
        self._groups = begun_groups(self._root, waiting, keep_others=self.tuning)
        begun = {key for group in self._groups for key in group.keys}
        self._waiting = {key: each for key, each in waiting.items() if key not in begun}
        for cell in planned.cells:
            if not cell.settled and planned.sweep is not None:
                why = why_untuned(self._root, planned.sweep.cells, cell.task.name, cell.entry.label)
                self._fail_cell(cell, *why)

    def is_empty(self) -> bool:
        """Return whether nothing is to be done."""
        return not self._tables

    def next(self, busy: bool) -> PlannedJob | None:
        """Return the next job, or None where everything left waits for a job under way, or nothing is left.

        Args:
            busy: Whether a job is under way; what is measured alone begins when none is.
        """
        if self._again:
            return self._again.pop()
        for group in self._groups:
            if all(needs(self._plan.by_key[key]) <= self._finished for key in group.keys if key in self._plan.by_key):
                self._groups.remove(group)
                return self._train_job(group)
        ready = [each for each in self._waiting.values() if needs(each) <= self._finished]
        if ready:
            for each in ready:
                del self._waiting[each.key]
            self._groups += [begin_group(self._root, part) for part in populations(ready, self._plan.workers)]
            return self.next(busy)
        for alone in (False, True):
            for planned in self._tables:
                cell = self._measured(planned.table)
                measurement = self._measurements[planned.table.measurement]
                if measurement.alone == alone and (cell or not planned.table.cells):
                    self._tables.remove(planned)
                    return self._table_job(planned, cell, measurement)
            if busy:
                return None
            self._fail_unreachable()
        return None

    def _measured(self, table: Table) -> PlannedCell | None:
        """Return the cell that a table can be measured on now."""
        if table.stages is not None:
            ready = table.cells if self._finished.issuperset(table.stages) else ()
        else:
            ready = tuple(name for name in table.cells if name in self._evaluated)
        return self._by_name[ready[0]] if ready else None

    def _train_job(self, group: Group) -> PlannedJob:
        missing = [self._plan.by_key[key] for key in group.keys if key in self._plan.by_key]
        cells = frozenset(name for each in missing for name in each.cells)
        payload = {**self._payload(group.task, group.seed), "group": str(group.folder.resolve())}
        job = Job(f"train {group.folder.name}", TRAIN, payload)
        return PlannedJob("training", job, group, None, cells, missing_completions(missing))

    def _table_job(self, planned: PlannedTable, cell: PlannedCell | None, measurement: Measurement) -> PlannedJob:
        table, study = planned.table, self._study
        seed = table.seed if cell is None else cell.seed
        task = next(each for each in study.tasks if each.name == table.task)
        instance = task.instance(seed)
        points = study.preferences(task)[0] if cell is None else cell.preferences
        payload = {
            **self._payload(task, seed),
            **table_payload(table, instance, {} if cell is None else cell.plain(), points.tolist()),
            "samples": study.samples,
            "prompts": study.prompts,
        }
        cells = frozenset([cell.name] if cell and not measurement.alone else [])
        job = Job(f"{measurement.name} {table.folder}", MEASURE, payload)
        return PlannedJob(measurement.name, job, None, planned, cells, planned.completions)

    def _payload(self, task: Task, seed: int) -> dict[str, object]:
        return {"folder": str(self._root.resolve()), **task_payload(task, seed)}

    def sealed(self, key: str) -> None:
        """Take note of a stage that a job has finished before its end."""
        self._finished.add(key)

    def succeeded(self, job: PlannedJob) -> None:
        """Take note of a job that is done."""
        if job.group is not None:
            self._finished.update(job.group.keys)
        elif (cell := self._finishes(job)) is not None:
            self.done_cells += 1
            self._evaluated.add(cell.name)

    def _finishes(self, job: PlannedJob) -> PlannedCell | None:
        """Return the cell that a table finishes, if it is one of those."""
        table = job.planned.table if job.planned is not None else None
        return self._by_name[table.cells[0]] if table is not None and table.stages is not None else None

    def failed(self, job: PlannedJob, reason: FailureReason, message: str, died: bool) -> None:
        """Take note of a job that failed; where what ran it `died`, it is tried once more, alone in its population."""
        group, cell = job.group, self._finishes(job)
        several = group is not None and not group.alone and len(self._by_trajectory(group)) > 1
        if group is not None and several and reason not in SHARED_REASONS:
            self._try_each_alone(group, reason)
        elif died and job.job.name not in self._tried_again and not (group is not None and group.alone):
            self._tried_again.add(job.job.name)
            self._again.append(job)
            self._say(f"{job.job.name} is tried again ({reason}): {message}")
        elif group is not None:
            self._fail_group(group, reason, message)
        elif cell is not None and not cell.rescored:
            self._fail_cell(cell, reason, f"{job.kind}: {message}")
        elif job.planned is not None:
            folder = job.planned.table.folder
            if job.planned.rescored:  # its completions are there: it stays as it was
                self.problems.append(f"{folder} could not be scored again ({reason}): {message}")
            else:
                mark_failed(self._root / folder, reason, message)
                self.problems.append(f"{folder} could not be measured ({reason}): {message}")
            self._say(self.problems[-1])

    def _by_trajectory(self, group: Group) -> dict[str, list[PlannedStage]]:
        """Return what is left of a population, by trajectory."""
        self._finished |= {key for key in group.keys if is_done(stage_folder(self._root, key))}
        left = [key for key in group.keys if key not in self._finished and key in self._plan.by_key]
        return trajectories([self._plan.by_key[key] for key in left])

    def _try_each_alone(self, group: Group, reason: FailureReason) -> None:
        """Try each trajectory of a failed population alone, once, so that only the guilty one fails."""
        spent = read_spent(group.folder)["spent"]
        by_trajectory = self._by_trajectory(group)
        # a failure is reported once, by the cells that fail for it; where each goes well alone, the log has it
        self._say(f"a population of {len(by_trajectory)} failed ({reason}), trying each alone")
        for trajectory, members in by_trajectory.items():
            own = {trajectory: spent[trajectory]} if trajectory in spent else {}
            self._groups.append(begin_group(self._root, members, alone=True, spent=own))
        shutil.rmtree(group.folder)

    def _fail_group(self, group: Group, reason: FailureReason, message: str) -> None:
        shutil.rmtree(group.folder / "checkpoint", ignore_errors=True)  # the next call starts it afresh
        for members in self._by_trajectory(group).values():
            for each in members:
                member = ", ".join(f"{name}={value}" for name, value in each.stage.member.items())
                self._failed_stages[each.key] = (reason, f"{each.stage.kind}{member and f' ({member})'}: {message}")

    def _fail_unreachable(self) -> None:
        """Fail the cells that wait for a failed stage."""
        for planned in [each for each in self._tables if each.table.stages is not None]:
            self._tables.remove(planned)
            causes = [why for key, why in self._failed_stages.items() if key in (planned.table.stages or ())]
            reason, message = causes[0] if causes else ("method_error", "its stages could not be started")
            self._fail_cell(self._by_name[planned.table.cells[0]], reason, message)

    def _fail_cell(self, cell: PlannedCell, reason: FailureReason, message: str) -> None:
        if cell.point is None:
            folder = cell_folder(self._root, cell.name)
            (folder / DONE).unlink(missing_ok=True)
            write_cell(self._root, cell.plain(), environment(worker_threads(self._plan.workers)))
            mark_failed(folder, reason, message)
            why = f"runs/{cell.name}/{FAILED} says why"  # so does the summary, which lists no trials of a sweep
        else:
            table = next(each.table for each in self._plan.tables if each.table.folder == cell.table)
            mark_tuning_failed(self._root, cell, table, reason, message)
            why = message
        self.failed_cells.append(cell.name)
        self._say(f"{cell.name} failed ({reason}): {why}")
