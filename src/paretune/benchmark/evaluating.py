"""Evaluation jobs of a worker: a cell's policies on the test prompts, and the base model beside them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paretune.benchmark.changes import changes, made_of, rewards_of
from paretune.benchmark.entries import MethodEntry, method_entry
from paretune.benchmark.environment import environment
from paretune.benchmark.executors.jobs import Link
from paretune.benchmark.finished import stage_result
from paretune.benchmark.keys import (
    evaluation_key,
    reference_key,
    reference_sampling_key,
    sampling_key,
    training_key,
    truth_key,
)
from paretune.benchmark.rescoring import rescore_cell, rescored_reference
from paretune.benchmark.stages import job_task, release_models, use_threads
from paretune.core.answers import answer_to_plain
from paretune.core.digests import digest, file_digest
from paretune.core.errors import MethodError, ParetuneError, RecordError, StudyError, TaskError
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly
from paretune.core.stages import in_order
from paretune.core.task import Task
from paretune.methods.asking import asked_stages, assembled
from paretune.records.evaluation import EvaluationRecord
from paretune.records.evaluations import read_evaluation
from paretune.records.files import DONE, is_done, mark_done, read_json, write_json
from paretune.records.layout import cell_folder, evaluation_path, outcome_path, reference_path, truth_path
from paretune.records.outcomes import OutcomeRecord, write_outcome
from paretune.records.study import CellRecord
from paretune.records.writing import write_cell, write_cell_evaluation, write_reference

if TYPE_CHECKING:
    from paretune.models.solutions import SolutionSet


def evaluate_cell(job: Mapping[str, Any], link: Link) -> dict[str, object]:
    """Assemble a cell's solution set, evaluate it for every preference and seal the cell.

    Evaluations that an earlier, smaller version of the study made of the same policies are kept. Where rewards of the
    audit have changed since, their completions are scored again.

    Args:
        job: `folder`, `task`, `seed`, `task_key`, `cell`, `source`, `settings`, `budget`, `told`, `preferences`,
            `decoding`, `training_key`, `evaluation_key` and `made_of`.
        link: To the parent.

    Raises:
        TaskError: If the task's files have changed since the run began.
        StudyError: If the method's have.
    """
    root, task = Path(job["folder"]), job_task(job)
    preferences, told = (np.asarray(job[name], dtype=np.float64) for name in ("preferences", "told"))
    if evaluation_key(job["training_key"], task, told, preferences, job["decoding"]) != job["evaluation_key"]:
        raise TaskError(
            f"audit of task '{task.name}' must not change while a study runs, got other files. Start the run again."
        )
    folder = cell_folder(root, job["cell"])
    again = rescore_cell(root, job["cell"], task, job["decoding"])
    if again and read_json(folder / DONE)["values"]["evaluation_key"] == job["evaluation_key"]:
        return {}
    try:
        _evaluate(job, root, task, link)
    finally:
        release_models()
    return {}


def _evaluate(job: Mapping[str, Any], root: Path, task: Task, link: Link) -> None:
    """Assemble a cell's solution set, evaluate it and write the cell."""
    from paretune.models.solutions import SolutionSet
    from paretune.rl.evaluation import evaluate

    use_threads(link.threads)
    preferences, told = (np.asarray(job[name], dtype=np.float64) for name in ("preferences", "told"))
    folder = cell_folder(root, job["cell"])
    entry, assembly, keys = assemble(job, root, task)
    solutions = SolutionSet.from_assembly(task, assembly, entry.label, entry.method.family)
    sampled = sampling_key(job["training_key"], task, job["decoding"])
    shared = digest([sampled, _told_apart(assembly, root)])
    kept = _kept(root, job["cell"], shared, rewards_of(task.audit), preferences)
    missing = [index for index in range(len(preferences)) if index not in kept]
    records = dict(kept)
    if missing:
        made = evaluate(
            solutions.policies_for(preferences[missing]),
            task.splits["test"][: job["decoding"]["prompts"]],
            scorer(task),
            objectives=task.objective_names,
            audit=tuple(objective.name for objective in task.audit),
            samples=int(job["decoding"]["samples"]),
            seed=int(job["seed"]),
            split="test",
            progress=link.progress,
        )
        records.update(zip(missing, made, strict=True))
        release_models()  # what is listed of the base model is read as it is
    _write(root, job, task, entry, keys, records, link.threads)
    if task.enumeration is not None or job["decoding"]["kl_matched"]:
        scored = _outcomes(solutions, [records[index] for index in range(len(preferences))], task, job, link)
        write_outcome(outcome_path(root, job["cell"]), scored)
    write_json(folder / "solution.json", solutions.plain(lambda path: _relative(path, folder)))
    mark_done(
        folder,
        {
            "evaluation_key": job["evaluation_key"],
            "sampled": sampled,
            "shared": shared,
            "audit": rewards_of(task.audit),
            "told": told.tolist(),
            "preferences": preferences.tolist(),
        },
    )


def evaluate_reference(job: Mapping[str, Any], link: Link) -> dict[str, object]:
    """Evaluate the base model of a task instance on its test prompts, or score again what it said there before.

    Args:
        job: `folder`, `task`, `seed`, `task_key`, `decoding`, `preferences` and `key`.
        link: To the parent.

    Raises:
        TaskError: If the task's files have changed since the run began.
    """
    root, task, seed = Path(job["folder"]), job_task(job), int(job["seed"])
    points = np.asarray(job["preferences"], dtype=np.float64)
    if reference_key(task, job["decoding"], points) != job["key"]:
        raise TaskError(
            f"audit of task '{task.name}' must not change while a study runs, got other files. Start the run again."
        )
    use_threads(link.threads)
    record = rescored_reference(root, task, seed, job["decoding"])
    if record is None:
        from paretune.models.base import load_base
        from paretune.rl.evaluation import evaluate, reference_policy

        (record,) = evaluate(
            reference_policy(load_base(task.model), task),
            task.splits["test"][: job["decoding"]["prompts"]],
            scorer(task),
            objectives=task.objective_names,
            audit=tuple(objective.name for objective in task.audit),
            samples=int(job["decoding"]["samples"]),
            seed=seed,
            split="test",
            progress=link.progress,
        )
    _write_reference(root, task, seed, job["decoding"], points, record)
    return {}


def write_rescored_reference(
    root: Path, task: Task, seed: int, decoding: Mapping[str, Any], points: FloatArray
) -> None:
    """Write the base model's evaluation with the rewards of today, where its completions are stored."""
    record = rescored_reference(root, task, seed, decoding)
    if record is not None:
        _write_reference(root, task, seed, decoding, points, record)


def _write_reference(
    root: Path, task: Task, seed: int, decoding: Mapping[str, Any], points: FloatArray, record: EvaluationRecord
) -> None:
    """Write the base model's evaluation, and what can be reached where that can be known and is not there."""
    path = reference_path(root, task.name, seed)
    marker, files = path.with_suffix(".json"), [path]
    key = truth_key(task, decoding, points) if task.enumeration is not None else None
    reached = None
    if key is not None:
        files.append(truth_path(root, task.name, seed))
        if not _has_truth(marker, files[1], key):
            from paretune.rl.outcomes import tables, truth

            log_reference, rewards = tables(task, task.splits["test"][: decoding["prompts"]], scorer(task))
            reached = truth(log_reference, rewards, points, task.beta)
    marker.unlink(missing_ok=True)  # until all files are there, none of them counts
    write_reference(root, task.name, seed, record)
    if reached is not None:
        write_outcome(files[1], reached)
    values = {
        "key": reference_key(task, decoding, points),
        "sampled": reference_sampling_key(task, decoding),
        "rewards": rewards_of((*task.objectives, *task.audit)),
        "truth": key,
        "files": {each.name: file_digest(each) for each in files},
    }
    write_json(marker, values)


def _has_truth(marker: Path, file: Path, key: str) -> bool:
    try:
        known = read_json(marker)
        return bool(known["truth"] == key and known["files"][file.name] == file_digest(file))
    except (RecordError, OSError, KeyError, TypeError):  # missing, damaged, or a marker that is none
        return False


def _outcomes(
    solutions: SolutionSet, records: Sequence[EvaluationRecord], task: Task, job: Mapping[str, Any], link: Link
) -> OutcomeRecord:
    """Score a cell's policies at every scale: exactly where completions can be listed, else from samples."""
    from paretune.rl.outcomes import outcomes, sampled_outcomes, tables

    rows, policy = task.splits["test"][: job["decoding"]["prompts"]], solutions.policies_for(job["preferences"])
    if task.enumeration is not None:
        log_reference, rewards = tables(task, rows, scorer(task))
        return outcomes(
            policy, rows, task.enumeration, log_reference, rewards, seed=int(job["seed"]), progress=link.progress
        )
    return sampled_outcomes(
        policy, records, rows, scorer(task), task.objective_names, tuple(objective.name for objective in task.audit),
        int(job["decoding"]["samples"]), int(job["seed"]), link.progress,
    )  # fmt: skip


def assemble(job: Mapping[str, Any], root: Path, task: Task) -> tuple[MethodEntry, Assembly, list[str]]:
    """Make a cell's method again and let it assemble its answer from the finished stages.

    Returns:
        The method, what it assembled, and the keys of all stages, needs first.

    Raises:
        StudyError: If its code has changed since the run began.
        MethodError: If it answers with other stages than before, or breaks its contract otherwise.
    """
    entry = method_entry(job["label"], {"method": job["source"], **job["settings"]}, f"methods.{job['label']}")
    told: FloatArray = np.asarray(job["told"], dtype=np.float64)
    budget, seed = int(job["budget"]), int(job["seed"])
    try:
        asked = asked_stages(entry.method, task, told, budget, seed)
        if training_key(task, entry, budget, seed, asked) != job["training_key"]:
            said = changes(*(json.loads(json.dumps(each)) for each in (job["made_of"], made_of(task, entry, asked))))
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
        return entry, assembled(entry.method, task, told, results), list(results)
    except ParetuneError as error:
        raise type(error)(f"methods.{entry.label}: {error}") from error


def scorer(task: Task) -> Any:
    """Return what scores a task's completions, audit included."""
    from paretune.objectives.scoring import Scorer

    return Scorer((*task.objectives, *task.audit))


def _told_apart(assembly: Assembly, root: Path) -> dict[str, object]:
    """Return what a cell's policies depend on beside its keys; stages are named by their digests."""
    mixer = assembly.mixer
    return {
        "answer": answer_to_plain(assembly.answer),
        "mixer": {**mixer.plain(), "gate": None if mixer.gate is None else _relative(mixer.gate, root)},
        "experts": [_relative(expert, root) for expert in assembly.experts],
    }


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _kept(
    root: Path, cell: str, shared: str, audit: Mapping[str, str], preferences: FloatArray
) -> dict[int, EvaluationRecord]:
    """Return evaluations of the same policies by the same rules, by the index they have now."""
    folder = cell_folder(root, cell)
    if not is_done(folder):  # begun, not finished: done again as a whole, so that resumed equals uninterrupted
        return {}
    before = read_json(folder / DONE)["values"]
    if before.get("shared") != shared or before.get("audit") != audit:
        return {}
    known = [list(row) for row in before["preferences"]]
    return {
        index: read_evaluation(evaluation_path(root, cell, known.index(row)))
        for index, row in enumerate(preferences.tolist())
        if row in known
    }


def _write(
    root: Path,
    job: Mapping[str, Any],
    task: Task,
    entry: MethodEntry,
    keys: list[str],
    records: Mapping[int, EvaluationRecord],
    threads: int,
) -> None:
    folder = cell_folder(root, job["cell"])
    (folder / DONE).unlink(missing_ok=True)
    shutil.rmtree(folder / "evaluations", ignore_errors=True)  # indices may have moved, and none may be left over
    cell = CellRecord(job["cell"], task.name, entry.label, entry.method.family, job["budget"], job["seed"], "pending")
    write_cell(root, cell, job["training_key"], job["evaluation_key"], keys, environment(threads), job["made_of"])
    for index, record in records.items():
        write_cell_evaluation(root, job["cell"], index, record)
