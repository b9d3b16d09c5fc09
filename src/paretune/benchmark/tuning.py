"""The sweep over settings: how its cells are scored on development prompts, and which settings are chosen."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paretune.benchmark.entries import setting
from paretune.benchmark.evaluating import assemble
from paretune.benchmark.executors.jobs import Link
from paretune.benchmark.planned import PlannedCell
from paretune.benchmark.stages import job_task, release_models, use_threads
from paretune.benchmark.study import Tune
from paretune.core.digests import KEY_VERSION, digest
from paretune.core.errors import RecordError
from paretune.core.preferences import FloatArray
from paretune.core.task import Task
from paretune.optimum.exact import gains, optimal_outcome, outcome
from paretune.records.evaluation import utility
from paretune.records.files import AGAIN, FAILED, mark_done, mark_failed, read_json, write_json
from paretune.records.layout import tuning_folder
from paretune.records.reading import read_stage
from paretune.records.study import FailureReason, TuningMeasure, TuningPoint, TuningRecord

if TYPE_CHECKING:
    from paretune.models.policy import Policy

SCORING = 1  # raised when scores of a sweep change meaning
SAME_SCORE = 1e-6  # policies compute in single precision: closer scores are one score
SCORE_FILE = "score.json"
LOST = "rewards of its completions are missing"
NOTHING_SCORED = "no settings of the sweep have a score"


@dataclass(frozen=True)
class CellScore:
    """How one cell of a sweep did on the development prompts of its instance.

    Attributes:
        utilities: Mean utility for each preference, `[M]`; NaN where rewards are missing.
        gained: `J` above the base model's for each preference, `[M]`; None where it is not known exactly.
        possible: The most that could be gained, `[M]`; None likewise.
        spent: Key of each of its stages -> completions and seconds of its training.
        trouble: Why it has no score at all; empty where it has one.
    """

    utilities: FloatArray | None
    gained: FloatArray | None = None
    possible: FloatArray | None = None
    spent: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    trouble: str = ""


def score_key(training_key: str, told: FloatArray, samples: int) -> str:
    """Digest what a cell's score depends on; its training key already holds development prompts and rewards.

    Args:
        training_key: Of the cell.
        told: Preferences it is scored on, `[M, K]`.
        samples: Completions per development prompt; 0 where all are listed.
    """
    return digest(
        {
            "key_version": KEY_VERSION,
            "scoring": SCORING,
            "training": training_key,
            "told": told.tolist(),
            "samples": samples,
        }
    )


def best(scores: Sequence[float | None]) -> int | None:
    """Return the position of the highest score, the first of those that are equal within rounding.

    Args:
        scores: In the order of the grid; None where there is none, which is never chosen.

    Returns:
        The position, or None where there is no score at all.

    Example:
        >>> best([0.5, None, 0.7, 0.7 + 1e-9]), best([None])
        (2, None)
    """
    known = [score for score in scores if score is not None]
    if not known:
        return None
    return next(i for i, score in enumerate(scores) if score is not None and score >= max(known) - SAME_SCORE)


def measure_of(cells: Iterable[CellScore]) -> TuningMeasure:
    """Return what all cells of a sweep that have a score at all can be compared by.

    The captured share where every one of them knows it and there is something to gain, else the utility: shares of some
    and utilities of others could not be compared.
    """
    scored = [cell for cell in cells if not cell.trouble]
    known = bool(scored) and all(cell.possible is not None and cell.possible.sum() > 0 for cell in scored)
    return "captured_share" if known else "utility"


def score(cells: Sequence[CellScore], measure: TuningMeasure) -> float | None:
    """Score settings over some instances; a captured share is a ratio of sums over instances and preferences.

    Args:
        cells: One for each instance.
        measure: What a score is.

    Returns:
        The score, or None where an instance has none.
    """
    if any(cell.trouble for cell in cells):
        return None
    if measure == "captured_share":
        gained = [cell.gained.sum() for cell in cells if cell.gained is not None]
        possible = [cell.possible.sum() for cell in cells if cell.possible is not None]
        return math.fsum(gained) / math.fsum(possible)
    means = [float(np.mean(cell.utilities)) for cell in cells if cell.utilities is not None]
    return None if math.isnan(sum(means)) else math.fsum(means) / len(means)


def tuning_records(
    tune: Tune, cells: Sequence[PlannedCell], scores: Mapping[str, CellScore]
) -> tuple[TuningRecord, ...]:
    """Return the finished sweeps, one for each task and method, and what each has chosen.

    Args:
        tune: The sweep.
        cells: Its cells, by task, method, point of the grid and instance.
        scores: Name of a cell -> its score, where it is finished.
    """
    sweeps: dict[tuple[str, str], list[PlannedCell]] = {}
    for cell in cells:
        sweeps.setdefault((cell.task.name, cell.entry.label), []).append(cell)
    return tuple(_record(tune, mine, scores) for mine in sweeps.values() if all(cell.name in scores for cell in mine))


def _record(tune: Tune, cells: Sequence[PlannedCell], scores: Mapping[str, CellScore]) -> TuningRecord:
    measure = measure_of(scores[cell.name] for cell in cells)
    points = []
    for number in range(len(tune.points)):
        mine = {cell.seed: scores[cell.name] for cell in cells if cell.point == number}
        entry = next(cell.entry for cell in cells if cell.point == number)
        whole, per_seed = score(list(mine.values()), measure), {}
        for seed, each in mine.items():
            per_seed[seed] = score([each], measure)
        lost = [(seed, mine[seed].trouble or LOST) for seed, each in per_seed.items() if each is None]
        points.append(
            TuningPoint(
                settings={name: setting(entry.settings, name) for name in tune.settings},
                score=whole,
                per_seed=per_seed,
                reason=f"seed {lost[0][0]}: {lost[0][1]}" if lost else "",
            )
        )
    spent = {key: cost for cell in cells for key, cost in scores[cell.name].spent.items()}
    return TuningRecord(
        task=cells[0].task.name,
        method=cells[0].entry.label,
        measure=measure,
        budget_completions=tune.completions,
        preferences=cells[0].told,
        points=tuple(points),
        chosen=best([point.score for point in points]),
        completions=math.fsum(completions for completions, _ in spent.values()),
        seconds=math.fsum(seconds for _, seconds in spent.values()),
    )


def mark_tuning_failed(root: Path, cell: PlannedCell, reason: FailureReason, message: str) -> None:
    """Write down that a cell of a sweep failed; the next call tries it again.

    Training that left the finite numbers is no failure but what these settings do: the cell is finished, without score.
    """
    folder = tuning_folder(root, cell.name)
    shutil.rmtree(folder, ignore_errors=True)
    if reason != "not_finite":
        mark_failed(folder, reason, message)
        return
    write_score(root, cell.name, CellScore(None, trouble=f"training did not stay finite: {message}"), about(cell))
    mark_done(folder, {"evaluation_key": cell.evaluation_key})


def about(cell: PlannedCell) -> dict[str, object]:
    """Return what a trial's `score.json` says beside its score: which trial it is, and what it is made of."""
    return {
        "task": cell.task.name,
        "method": cell.entry.label,
        "source": cell.entry.source,
        "budget_completions": cell.budget,
        "seed": cell.seed,
        "tried": cell.tried,
        "settings": dict(cell.entry.settings),
        "preferences": cell.told.tolist(),
        "stages": list(cell.stages),
        "made_of": dict(cell.made_of),
    }


def why_untuned(root: Path, sweep: Sequence[PlannedCell], task: str, method: str) -> tuple[FailureReason, str]:
    """Say why a sweep has chosen no settings for a method on a task: a cell that failed, or nothing with a score."""
    for cell in sweep:
        if (cell.task.name, cell.entry.label, cell.state) == (task, method, "failed"):
            failure = read_json(tuning_folder(root, cell.name) / FAILED)
            return failure["reason"], f"tuning, {cell.name}: {failure['message']}"
    return "not_finite", f"tuning: {NOTHING_SCORED}; study.lock.json says why"


def write_score(root: Path, cell: str, score: CellScore, about: Mapping[str, object]) -> None:
    """Write what a cell of a sweep scored; its marker is written by `mark_done`.

    Args:
        root: The study's folder.
        cell: Its name.
        score: What it scored.
        about: What tells which trial this is, see `about`.
    """
    plain = {
        "utilities": _numbers(score.utilities),
        "gained": _numbers(score.gained),
        "possible": _numbers(score.possible),
        "spent": dict(score.spent),
        "trouble": score.trouble,
    }
    write_json(tuning_folder(root, cell) / SCORE_FILE, {**about, **plain})


def read_score(root: Path, cell: str) -> CellScore:
    """Read what a finished cell of a sweep scored.

    Raises:
        RecordError: If it is missing or damaged.
    """
    path = tuning_folder(root, cell) / SCORE_FILE
    data = read_json(path)
    try:
        return CellScore(
            utilities=_array(data["utilities"]),
            gained=_array(data["gained"]),
            possible=_array(data["possible"]),
            spent={key: (float(completions), float(seconds)) for key, (completions, seconds) in data["spent"].items()},
            trouble=data["trouble"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(f"{path} must have all its fields, got trouble with {error}. {AGAIN}") from error


def _numbers(values: FloatArray | None) -> list[float | None] | None:
    return None if values is None else [None if math.isnan(value) else float(value) for value in values]


def _array(values: Sequence[float | None] | None) -> FloatArray | None:
    return None if values is None else np.array(values, dtype=np.float64)  # null becomes NaN


def score_cell(job: Mapping[str, Any], link: Link) -> dict[str, object]:
    """Assemble a cell of a sweep and score its policies on development prompts; the job of a worker.

    Test prompts are not looked at.

    Args:
        job: As for `evaluating.evaluate_cell`, and `about`, see there.
        link: To the parent.
    """
    root, task = Path(job["folder"]), job_task(job)
    try:
        found, keys = _scored(job, root, task, link)
    finally:
        release_models()
    stages = [read_stage(root, key) for key in keys]
    spent = {stage.key: (stage.counts["completions"], stage.seconds) for stage in stages}
    folder = tuning_folder(root, job["cell"])
    shutil.rmtree(folder, ignore_errors=True)
    write_score(root, job["cell"], replace(found, spent=spent), job["about"])
    mark_done(folder, {"evaluation_key": job["evaluation_key"]})
    return {}


def _scored(job: Mapping[str, Any], root: Path, task: Task, link: Link) -> tuple[CellScore, list[str]]:
    """Assemble a cell and score its policies; return its score and the keys of its stages."""
    from paretune.models.solutions import SolutionSet

    use_threads(link.threads)
    entry, assembly, keys = assemble(job, root, task)
    solutions = SolutionSet.from_assembly(task, assembly, entry.label, entry.method.family)
    told = np.asarray(job["told"], dtype=np.float64)
    policy = solutions.policies_for(told)
    if task.enumeration is None:
        return _sampled(policy, task, told, int(job["decoding"]["samples"]), int(job["seed"]), link), keys
    return _exact(policy, task, told, int(job["seed"]), link), keys


def _sampled(policy: Policy, task: Task, told: FloatArray, samples: int, seed: int, link: Link) -> CellScore:
    """Score a policy by samples; their noise is that of the seed, the same for all settings."""
    from paretune.objectives.scoring import Scorer
    from paretune.rl.evaluation import evaluate

    records = evaluate(
        policy, task.splits["development"], Scorer(task.objectives), objectives=task.objective_names, audit=(),
        samples=samples, seed=seed, split="development", progress=link.progress,
    )  # fmt: skip
    return CellScore(np.array([utility(each.scores, point) for each, point in zip(records, told, strict=True)]))


def _exact(policy: Policy, task: Task, told: FloatArray, seed: int, link: Link) -> CellScore:
    """Score a policy over all completions; one that can only be sampled has no KL, so what it gained is not known."""
    from paretune.objectives.scoring import Scorer
    from paretune.rl.outcomes import enumeration_of, outcomes, tables

    rows = task.splits["development"]
    log_reference, rewards = tables(task, rows, Scorer(task.objectives))
    found = outcomes(policy, rows, enumeration_of(task), log_reference, rewards, (1.0,), seed, link.progress)
    means, kl = found.rewards[:, 0].mean(axis=1), found.kl[:, 0].mean(axis=1)  # [M, K] and [M]
    utilities = np.einsum("mk,mk->m", told, means)
    if not (found.exact and np.isfinite(kl).all()):
        return CellScore(utilities)
    base = outcome(log_reference, log_reference, rewards).scores(task.beta)
    most = optimal_outcome(log_reference, rewards, told, task.beta).scores(task.beta)
    return CellScore(utilities, *gains(means - task.beta * kl[:, None], base, most, told))
