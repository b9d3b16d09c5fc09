"""Evaluation jobs of a worker: a cell's policies on the test prompts, and the base model beside them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paretune.benchmark.environment import environment
from paretune.benchmark.stages import job_task, stage_result, use_threads
from paretune.benchmark.study import MethodEntry, method_entry
from paretune.benchmark.worker import Link
from paretune.core.answers import answer_to_plain
from paretune.core.digests import digest, file_digest
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly
from paretune.core.stages import in_order
from paretune.core.task import Task
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

    Evaluations that an earlier, smaller version of the study made of the same policies are kept.

    Args:
        job: `folder`, `task`, `seed`, `task_key`, `cell`, `source`, `settings`, `budget`, `told`, `preferences`,
            `decoding`, `training_key` and `evaluation_key`.
        link: To the parent.
    """
    root, task = Path(job["folder"]), job_task(job)
    from paretune.models.solutions import SolutionSet
    from paretune.rl.evaluation import evaluate

    use_threads(link.threads)
    entry, assembly, keys = assemble(job, root, task)
    solutions = SolutionSet.from_assembly(task, assembly, entry.label, entry.method.family)
    preferences = np.asarray(job["preferences"], dtype=np.float64)
    shared = digest([job["training_key"], task.evaluation_key(), job["decoding"], _told_apart(assembly, root)])
    kept = _kept(root, job["cell"], shared, preferences)
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
        solutions.bank.unwrap()  # the base model is shared by all jobs of this process
    _write(root, job, task, entry, keys, records, link.threads)
    if task.enumeration is not None or job["decoding"]["kl_matched"]:
        scored = _outcomes(solutions, [records[index] for index in range(len(preferences))], task, job, link)
        write_outcome(outcome_path(root, job["cell"]), scored)
        solutions.bank.unwrap()
    folder = cell_folder(root, job["cell"])
    write_json(folder / "solution.json", solutions.plain(lambda path: _relative(path, folder)))
    mark_done(
        folder,
        {"evaluation_key": job["evaluation_key"], "shared": shared, "preferences": preferences.tolist()},
    )
    return {}


def evaluate_reference(job: Mapping[str, Any], link: Link) -> dict[str, object]:
    """Evaluate the base model of a task instance on its test prompts.

    Args:
        job: `folder`, `task`, `seed`, `task_key`, `decoding`, `preferences` and `key`.
        link: To the parent.
    """
    root, task, seed = Path(job["folder"]), job_task(job), int(job["seed"])
    from paretune.models.base import load_base
    from paretune.rl.evaluation import evaluate, reference_policy

    use_threads(link.threads)
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
    files = [reference_path(root, task.name, seed)]
    marker = files[0].with_suffix(".json")
    marker.unlink(missing_ok=True)  # until all files are there, none of them counts
    write_reference(root, task.name, seed, record)
    if task.enumeration is not None:
        from paretune.rl.outcomes import tables, truth

        log_reference, rewards = tables(task, task.splits["test"][: job["decoding"]["prompts"]], scorer(task))
        points = np.asarray(job["preferences"], dtype=np.float64)
        files.append(truth_path(root, task.name, seed))
        write_outcome(files[1], truth(log_reference, rewards, points, task.beta))
    write_json(marker, {"key": job["key"], "files": {each.name: file_digest(each) for each in files}})
    return {}


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
    """
    entry = method_entry(job["label"], {"method": job["source"], **job["settings"]}, f"methods.{job['label']}")
    told: FloatArray = np.asarray(job["told"], dtype=np.float64)
    stages = in_order(entry.method.stages(task, told, int(job["budget"]), int(job["seed"])), task)
    results = {stage.key(task): stage_result(root, stage, task) for stage in stages}
    return entry, entry.method.assemble(task, told, results), list(results)


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


def _kept(root: Path, cell: str, shared: str, preferences: FloatArray) -> dict[int, EvaluationRecord]:
    """Return evaluations of the same policies by the same rules, by the index they have now."""
    folder = cell_folder(root, cell)
    if not is_done(folder):  # begun, not finished: done again as a whole, so that resumed equals uninterrupted
        return {}
    before = read_json(folder / DONE)["values"]
    if before.get("shared") != shared:
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
    write_cell(root, cell, job["training_key"], job["evaluation_key"], keys, environment(threads))
    for index, record in records.items():
        write_cell_evaluation(root, job["cell"], index, record)
