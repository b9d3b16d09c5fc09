"""Measuring one table: the job of a worker, and what a measurement may ask it for."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paretune.benchmark.changes import changes, made_of
from paretune.benchmark.keys import training_key
from paretune.benchmark.measurements import MEASUREMENTS, TRIAL, check_tables, load_measurement, source_of
from paretune.benchmark.planned import PlannedCell
from paretune.benchmark.study import Study
from paretune.core.answers import answer_to_plain
from paretune.core.digests import digest
from paretune.core.errors import ConfigError, MethodError, ParetuneError, StudyError
from paretune.core.feedback import feedback_of
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, Method, Table
from paretune.core.stages import in_order
from paretune.core.task import Row, Task
from paretune.core.user_calls import called
from paretune.core.user_code import loaded_code
from paretune.executors.environment import environment
from paretune.executors.jobs import Link
from paretune.methods.asking import asked_stages, assembled
from paretune.methods.entries import MethodEntry, method_entry
from paretune.records.evaluation import EvaluationRecord
from paretune.records.files import DONE, fresh_folder, mark_done, write_json
from paretune.records.layout import cell_folder
from paretune.records.tables import look, seal_table
from paretune.records.writing import write_cell
from paretune.training.finished import stage_result
from paretune.training.stages import check_same, job_task, release_models, use_threads

if TYPE_CHECKING:
    from paretune.models.policy import Policy
    from paretune.models.solutions import SolutionSet
    from paretune.rl.requests import Requests


class TableJob:
    """What a measurement measures, and where it writes.

    Attributes:
        folder: Empty folder for what it writes; sealed and put in place when `run` returns.
        root: The study's folder.
        table: Where the table lies in it.
        depends_on: What the table depends on, part by part.
        before: What the marker of the last table there keeps, `depends_on` among it; empty where that is not whole.
        task: The task instance.
        seed: Names it; of the noise in evaluation.
        samples: Completions of each test prompt.
        rows: The test prompts, with their columns.
        preferences: All preferences that are evaluated, `[M, K]`.
        cell: What names the cell measured, plain data; empty where it is none.
        link: To the scheduler; hears of progress.
    """

    def __init__(self, payload: Mapping[str, Any], folder: Path, task: Task, link: Link) -> None:
        self.folder, self.task, self.link = folder, task, link
        self.root, self.table = Path(payload["folder"]), str(payload["table"])
        self.depends_on: Mapping[str, Any] = payload["depends_on"]
        self.before = look(self.root, self.table).values
        self.seed, self.samples = int(payload["seed"]), int(payload["samples"])
        self.preferences: FloatArray = np.asarray(payload["preferences"], dtype=np.float64)
        self.cell: Mapping[str, Any] = payload["cell"]
        self._prompts = payload["prompts"]

    @property
    def work(self) -> Path:
        """A folder that outlives a kill, for stages that it trains; it goes when the table is sealed."""
        target = self.root / self.table
        return target.with_name(f".{target.name}.work")

    @property
    def training_link(self) -> Link:
        """The link for stages that are trained in `work`: those are none of the study's, and nobody waits for them."""

        def send(message: Mapping[str, Any]) -> None:
            if message["kind"] != "sealed":
                self.link.send(message)

        return Link(send, self.link.stopped, self.link.threads)

    @property
    def rows(self) -> Sequence[Row]:
        """The test prompts."""
        return self.task.splits["test"][: self._prompts]

    @cached_property
    def _assembled(self) -> tuple[MethodEntry, Assembly]:
        return assemble(self.cell, self.root, self.task)

    @property
    def method(self) -> Method:
        """The cell's method, with its settings."""
        return self._assembled[0].method

    @cached_property
    def solutions(self) -> SolutionSet:
        """The cell's solution set."""
        from paretune.models.solutions import SolutionSet

        entry, assembly = self._assembled
        return SolutionSet.from_assembly(self.task, assembly, entry.label, entry.method.family)

    @property
    def answer(self) -> dict[str, object]:
        """What the cell's policies depend on beside its training; stages are named by their digests."""
        assembly = self._assembled[1]
        mixer = assembly.mixer
        return {
            "answer": answer_to_plain(assembly.answer),
            "mixer": {**mixer.plain(), "gate": None if mixer.gate is None else _relative(mixer.gate, self.root)},
            "experts": [_relative(expert, self.root) for expert in assembly.experts],
        }

    def answering(
        self, preferences: FloatArray, rows: Sequence[Row], solutions: SolutionSet | None = None,
        task: Task | None = None,
    ) -> Policy | Requests:  # fmt: skip
        """Return the policies for preferences on prompts.

        Where the cell's feedback is the oracle's, each prompt is answered by the policy for what the user wants of it.

        Args:
            preferences: `[M, K]`.
            rows: The prompts.
            solutions: That the cell's method has made; by default the cell's own.
            task: Whose objectives the preferences weigh; by default the cell's.
        """
        own, task = self.solutions if solutions is None else solutions, self.task if task is None else task
        if not task.contextual or feedback_of(self.cell["settings"]) != "oracle":
            return own.policies_for(preferences)
        from paretune.rl.requests import requests_for

        return requests_for(own, preferences, task.prompt_preferences(rows, preferences))

    def with_prompt_preferences(self, records: Sequence[EvaluationRecord]) -> list[EvaluationRecord]:
        """Return evaluations on the test prompts with what the users of their preferences want of these."""
        if not self.task.contextual:
            return list(records)
        wanted = self.task.prompt_preferences(self.rows, np.stack([record.preference for record in records]))
        return [replace(record, prompt_preferences=row) for record, row in zip(records, wanted, strict=True)]

    def scorer(self) -> Any:
        """Return what scores completions on the objectives and the audit."""
        from paretune.objectives.scoring import Scorer

        return Scorer((*self.task.objectives, *self.task.audit))

    def evaluation_arguments(self) -> dict[str, Any]:
        """Return what `rl.evaluation.evaluate` takes beside the policy."""
        return {
            "rows": self.rows,
            "score": self.scorer(),
            "objectives": self.task.objective_names,
            "audit": tuple(objective.name for objective in self.task.audit),
            "samples": self.samples,
            "seed": self.seed,
            "split": "test",
            "progress": self.link.progress,
        }

    def seal_cell(self) -> None:
        """Write the cell's `cell.json` and `solution.json` and seal them, where that is not done."""
        folder = cell_folder(self.root, self.cell["cell"])
        if look(self.root, f"runs/{self.cell['cell']}", self.cell["key"]).state == "finished":
            return
        (folder / DONE).unlink(missing_ok=True)
        write_cell(self.root, self.cell, environment(self.link.threads))
        write_json(folder / "solution.json", self.solutions.plain(lambda path: _relative(path, folder)))
        mark_done(folder, {"key": self.cell["key"]}, among=("cell.json", "solution.json"))


def wanted_tables(study: Study, cells: Sequence[PlannedCell]) -> list[Table]:
    """Ask the measurements of a study what there is to measure on its cells, or on the trials of its sweep.

    Args:
        study: The study.
        cells: Its cells.

    Raises:
        ConfigError: If a measurement cannot be used, or asks for a table that must not be.
    """
    of_trials = any(cell.point is not None for cell in cells)
    tables: list[Table] = []
    for name in (TRIAL,) if of_trials else (*MEASUREMENTS, *study.measurements):
        measurement, code = load_measurement(name), loaded_code([source_of(name)])
        identity = {"measurement": measurement.name, "version": measurement.version, **({"code": code} if code else {})}
        with called(f"jobs of measurement {name}", ConfigError) if code else nullcontext():
            wanted = measurement.jobs(study, cells)
        if name in study.measurements:
            check_tables(name, measurement.name, wanted, cells)
        tables += [replace(table, measurement=name, depends_on={**table.depends_on, **identity}) for table in wanted]
    return tables


def table_payload(table: Table, task: Task, cell: Mapping[str, object], preferences: object) -> dict[str, object]:
    """Return what `measure` is given beside the study's folder and rules.

    Args:
        table: The table.
        task: Its task instance.
        cell: What names the cell measured, as plain data; empty where it is none.
        preferences: All preferences evaluated.
    """
    return {
        "table": table.folder,
        "measurement": source_of(table.measurement),
        "depends_on": table.depends_on,
        "cell": cell,
        "preferences": preferences,
        "audit_key": digest(task.evaluation_key()) if "rewards" in table.depends_on else "",
    }


def measure(payload: Mapping[str, Any], link: Link) -> dict[str, object]:
    """Measure one table and seal it: the job of a worker. A kill leaves the table as it was, or as it is to be.

    Args:
        payload: `folder`, `task`, `seed`, `task_key`, `samples`, `prompts`, and what `table_payload` says.
        link: To the parent.

    Raises:
        TaskError: If the task's files have changed since the run began.
        StudyError: If the method's or the measurement's have.
        MethodError: If a user's measurement raises something that is no error of ours.
    """
    task, source = job_task(payload), str(payload["measurement"])
    if payload["audit_key"]:
        check_same(f"audit of task '{task.name}'", task.evaluation_key(), str(payload["audit_key"]), payload, task)
    measurement = load_measurement(source)
    if loaded_code([source]) != payload["depends_on"].get("code", {}):
        raise StudyError(
            f"measurement '{source}' must not change while a study runs, got other files. Start the run again."
        )
    use_threads(link.threads)
    target = Path(payload["folder"]) / payload["table"]
    fresh = fresh_folder(target)
    table = Table(payload["table"], task.name, int(payload["seed"]), payload["depends_on"])
    job = TableJob(payload, fresh, task, link)
    try:
        with called(f"measurement {source}") if "code" in payload["depends_on"] else nullcontext():
            more = measurement.run(job, link)
    finally:
        release_models()
    seal_table(fresh, target, table, more)
    shutil.rmtree(job.work, ignore_errors=True)
    return {}


def assemble(cell: Mapping[str, Any], root: Path, task: Task) -> tuple[MethodEntry, Assembly]:
    """Make a cell's method again and let it assemble its answer from the finished stages.

    Args:
        cell: What names it, see `PlannedCell.plain`.
        root: The study's folder.
        task: Its task instance.

    Returns:
        The method, and what it assembled.

    Raises:
        StudyError: If its code has changed since the run began.
        MethodError: If it answers with other stages than before, or breaks its contract otherwise.
    """
    label = str(cell["method"])
    entry = method_entry(label, {"method": cell["source"], **cell["settings"]}, f"methods.{label}")
    given: FloatArray = np.asarray(cell["training_preferences"], dtype=np.float64)
    budget, seed = int(cell["budget_completions"]), int(cell["seed"])
    try:
        asked = asked_stages(entry.method, task, given, budget, seed)
        if training_key(task, entry, budget, seed, asked) != cell["training_key"]:
            said = changes(*(json.loads(json.dumps(each)) for each in (cell["made_of"], made_of(task, entry, asked))))
            if said:
                raise StudyError(
                    f"a method must not change while a study runs, got: {', '.join(said)}. Start the run again."
                )
            raise MethodError(
                f"{type(entry.method).__name__}.stages must return equal stages for equal arguments, got others in "
                "another process. Take randomness from seed alone; no clock, no order of a set."
            )
        stages = in_order(asked, task)
        results = {stage.key(task): stage_result(root, stage, task) for stage in stages}
        return entry, assembled(entry.method, task, given, results)
    except ParetuneError as error:
        raise type(error)(f"methods.{entry.label}: {error}") from error


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()
