"""How many completions a plan still takes, and how fast they come."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paretune.benchmark.planned import PlannedCell, PlannedStage
from paretune.benchmark.rescoring import stored_reference
from paretune.benchmark.study import Study
from paretune.core.task import Task
from paretune.records.outcomes import SCALES
from paretune.records.reading import read_stage

TRAINING_RATE = 3_200.0  # tokens per second and worker, quick study on two busy laptop cores; until measured
EVALUATION_RATE = 2_400.0  # the same for evaluation: longer texts, read again by the base and by the audit
ENUMERATION_RATE = 600_000.0  # completions a second and worker that an exact gradient reads, study `controlled`
START_SECONDS = 20.0  # imports of a worker, and the report


def missing_completions(stages: Sequence[PlannedStage]) -> int:
    """Add up what is to be trained; a shorter run is made on the way of a longer one."""
    longest: dict[str, int] = {}
    for planned in stages:
        if planned.state != "finished":
            trajectory = planned.stage.trajectory_key(planned.task)
            longest[trajectory] = max(longest.get(trajectory, 0), planned.missing)
    return sum(longest.values())


def evaluations(study: Study, root: Path, cells: Sequence[PlannedCell], references: Sequence[tuple[str, int]]) -> int:
    """Return how many completions evaluation still takes, base models included."""
    of_cells = sum(evaluated_completions(study, cell) for cell in cells if cell.state != "finished")
    tasks = {task.name: task for task in study.tasks}
    sampled = [
        len(study.test_rows(tasks[name]))
        for name, seed in references
        if stored_reference(root, tasks[name].instance(seed), seed, study.decoding()) is None
    ]
    return of_cells + sum(sampled) * study.samples


def evaluated_completions(study: Study, cell: PlannedCell) -> int:
    """Return how many completions evaluating a cell takes at most; preferences answered alike are sampled once."""
    if cell.rescored:
        return 0
    policies = len(cell.preferences)
    if cell.point is not None:
        return len(cell.task.splits["development"]) * policies * scored_samples(study, cell.task)
    if study.kl_matched and cell.task.enumeration is None:
        policies = policies * (len(SCALES) - 1) + 1  # at scale 0 all of them are the base model
    return len(study.test_rows(cell.task)) * policies * study.samples


def scored_samples(study: Study, task: Task) -> int:
    """Return how many completions of a development prompt score a cell of the sweep: none where all are listed."""
    return study.samples if task.enumeration is None else 0


def rate_of(
    stages: Sequence[PlannedStage], root: Path, spent: Sequence[tuple[float, float]]
) -> tuple[float | None, bool]:
    """Return completions per second and worker, and whether finished stages say so: else it is `TRAINING_RATE`.

    None where no stage is charged for any. `spent` are completions and seconds of finished stages beside these.
    """
    charged = [each for each in stages if each.stage.completions]
    records = [read_stage(root, each.key) for each in charged if each.state == "finished" and not each.trouble]
    seconds = sum(record.seconds for record in records) + sum(each for made, each in spent if made)
    completions = sum(record.counts["completions"] for record in records) + sum(made for made, _ in spent)
    if charged and seconds > 0 and completions > 0:
        return completions / seconds, True
    tokens = sum(each.stage.completions * each.task.max_completion_tokens for each in charged)
    return (TRAINING_RATE * sum(each.stage.completions for each in charged) / tokens if tokens else None), False
