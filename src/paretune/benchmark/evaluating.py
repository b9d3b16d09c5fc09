"""Evaluation jobs of a worker: a cell's policies on the test prompts, and the base model beside them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from paretune.benchmark.environment import environment
from paretune.benchmark.stages import job_task, stage_result, use_threads
from paretune.benchmark.study import MethodEntry, method_entry
from paretune.benchmark.worker import Link
from paretune.core.digests import digest
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly
from paretune.core.stages import in_order
from paretune.core.task import Task
from paretune.records.evaluation import EvaluationRecord
from paretune.records.evaluations import read_evaluation
from paretune.records.files import DONE, is_done, mark_done, read_json, write_json
from paretune.records.layout import cell_folder, evaluation_path, reference_path
from paretune.records.study import CellRecord
from paretune.records.writing import write_cell, write_cell_evaluation, write_reference


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
    shared = digest([job["training_key"], task.evaluation_key(), job["decoding"], _plain_rule(assembly)])
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
    names = [f"../../stages/{result.key}/adapter" for result in assembly.experts]
    folder = cell_folder(root, job["cell"])
    write_json(folder / "solution.json", solutions.plain(names))
    mark_done(
        folder,
        {"evaluation_key": job["evaluation_key"], "shared": shared, "preferences": preferences.tolist()},
    )
    return {}


def evaluate_reference(job: Mapping[str, Any], link: Link) -> dict[str, object]:
    """Evaluate the base model of a task instance on its test prompts.

    Args:
        job: `folder`, `task`, `seed`, `task_key`, `decoding` and `key`.
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
    write_reference(root, task.name, seed, record)
    write_json(reference_path(root, task.name, seed).with_suffix(".json"), {"key": job["key"]})
    return {}


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


def _plain_rule(assembly: Assembly) -> dict[str, object]:
    return {
        "kind": assembly.rule.kind,
        "table": assembly.rule.table.tolist(),
        "experts": [result.key for result in assembly.experts],
    }


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
