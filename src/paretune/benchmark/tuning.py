"""The sweep over settings: how its cells are scored on development prompts, and which settings are chosen."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from paretune.benchmark.measurements.evaluation import context_of
from paretune.benchmark.measuring import TableJob
from paretune.benchmark.planned import PlannedCell
from paretune.benchmark.study import Study, Tune
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Table
from paretune.core.task import Task
from paretune.executors.jobs import Link
from paretune.methods.entries import setting
from paretune.methods.judging import judged_scores
from paretune.optimum.exact import Outcome, gains, optimal_outcome, outcome, prompt_gains
from paretune.records.evaluation import utility
from paretune.records.files import FAILED, fresh_folder, mark_failed, read_json, write_json
from paretune.records.layout import tuning_folder
from paretune.records.outcomes import read_record, write_outcome
from paretune.records.reading import read_stage
from paretune.records.study import FailureReason, TuningMeasure, TuningPoint, TuningRecord
from paretune.records.tables import seal_table

if TYPE_CHECKING:
    from paretune.models.policy import Policy
    from paretune.rl.requests import Requests

SAME_SCORE = 1e-6  # policies compute in single precision: closer scores are one score
CELL_FILE, SCORE_FILE = "cell.json", "score.json"
LOST = "rewards of its completions are missing"
NOTHING_SCORED = "no settings of the sweep have a score"


@dataclass(frozen=True)
class CellScore:
    """How one cell of a sweep did on the development prompts of its instance.

    Attributes:
        utilities: What is achieved for each preference, `[M]`: mean utility, or J where samples are all there is and
            the task is judged on it; NaN where rewards are missing.
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
    measure, task = measure_of(scores[cell.name] for cell in cells), cells[0].task
    points = []
    for number, point in enumerate(tune.points(cells[0].entry)):
        mine = {cell.seed: scores[cell.name] for cell in cells if cell.point == number}
        per_seed = {seed: score([each], measure) for seed, each in mine.items()}
        lost = [(seed, mine[seed].trouble or LOST) for seed, each in per_seed.items() if each is None]
        entry = next(cell.entry for cell in cells if cell.point == number)
        tried = {name: setting(entry.settings, name) for name in point}
        reason = f"seed {lost[0][0]}: {lost[0][1]}" if lost else ""
        points.append(TuningPoint(tried, score(list(mine.values()), measure), per_seed, reason))
    spent = {key: cost for cell in cells for key, cost in scores[cell.name].spent.items()}.values()
    if measure == "utility" and _sampled_j(task):
        measure = "J"
    return TuningRecord(
        task.name, cells[0].entry.label, measure, tune.completions, cells[0].preferences, tuple(points),
        chosen=best([point.score for point in points]),
        completions=math.fsum(completions for completions, _ in spent),
        seconds=math.fsum(seconds for _, seconds in spent),
    )  # fmt: skip


def mark_tuning_failed(root: Path, cell: PlannedCell, table: Table, reason: FailureReason, message: str) -> None:
    """Write down that a cell of a sweep failed; the next call tries it again.

    Training that left the finite numbers is no failure but what these settings do: the cell is finished, without score.
    """
    if reason != "not_finite":
        shutil.rmtree(target := tuning_folder(root, cell.name), ignore_errors=True)
        mark_failed(target, reason, message)
        return
    fresh = fresh_folder(target := tuning_folder(root, cell.name))
    write_score(fresh, CellScore(None, trouble=f"training did not stay finite: {message}"), cell.plain())
    seal_table(fresh, target, table)


def why_untuned(root: Path, sweep: Sequence[PlannedCell], task: str, method: str) -> tuple[FailureReason, str]:
    """Say why a sweep has chosen no settings for a method on a task: a cell that failed, or nothing with a score."""
    for cell in sweep:
        if (cell.task.name, cell.entry.label, cell.state) == (task, method, "failed"):
            failure = read_json(tuning_folder(root, cell.name) / FAILED)
            return failure["reason"], f"tuning, {cell.name}: {failure['message']}"
    return "not_finite", f"tuning: {NOTHING_SCORED}; study.lock.json says why"


def write_score(folder: Path, score: CellScore, cell: Mapping[str, object]) -> None:
    """Write what a cell of a sweep scored, and what names the cell, see `PlannedCell.plain`."""
    write_json(folder / CELL_FILE, cell)
    write_outcome(folder / SCORE_FILE, score)


def read_score(root: Path, cell: str) -> CellScore:
    """Read what a finished cell of a sweep scored.

    Raises:
        RecordError: If it is missing or damaged.
    """
    score: CellScore = read_record(tuning_folder(root, cell) / SCORE_FILE, CellScore, ("spent", "trouble"))
    return score


class TrialScore:
    """The measurement of a cell of a sweep: its policies on development prompts. Test prompts are not looked at."""

    name, version, alone = "score", 1, False

    def jobs(self, study: Study, cells: Sequence[PlannedCell]) -> list[Table]:
        """Return one table a cell; its training key already holds development prompts and rewards."""
        return [
            Table(
                cell.folder, cell.task.name, cell.seed,
                {**cell.answered, "samples": _samples(study, cell), **context_of(cell.task)}, (cell.name,), cell.stages,
                len(cell.task.development_rows()) * len(cell.preferences) * _samples(study, cell),
            )
            for cell in cells
        ]  # fmt: skip

    def run(self, job: TableJob, link: Link) -> None:
        """Score its policies, exactly where completions can be listed."""
        rows = job.task.development_rows()
        policy, given = job.answering(job.preferences, rows), job.preferences
        if job.task.enumeration is None:
            found = _sampled(policy, job.task, given, job.samples, job.seed, link)
        else:
            found = _exact(policy, job.task, given, job.seed, link)
        stages = [read_stage(job.root, key) for key in job.cell["stages"]]
        spent = {stage.key: (stage.counts["completions"], stage.seconds) for stage in stages}
        write_score(job.folder, replace(found, spent=spent), job.cell)


def _samples(study: Study, cell: PlannedCell) -> int:
    return study.samples if cell.task.enumeration is None else 0  # none where all completions are listed


def _sampled(
    policy: Policy | Requests, task: Task, given: FloatArray, samples: int, seed: int, link: Link
) -> CellScore:
    """Score a policy by samples; their noise is that of the seed, the same for all settings."""
    from paretune.objectives.scoring import Scorer
    from paretune.rl.evaluation import evaluate

    records = evaluate(
        policy, task.development_rows(), Scorer(task.objectives), objectives=task.objective_names, audit=(),
        samples=samples, seed=seed, split="development", progress=link.progress,
    )  # fmt: skip
    scores, kl = np.stack([each.scores for each in records]), np.array([each.kl for each in records])
    if task.contextual:
        wanted = task.prompt_preferences(task.development_rows(), given)
        utilities = np.array([record.utility_by(row) for record, row in zip(records, wanted, strict=True)])
        return CellScore(utilities - task.beta * kl if task.judged_on == "J" else utilities)
    if task.judged_on == "J":  # of a policy of several particles no KL is known, so what it gained is not either
        scores = np.where(np.isfinite(kl)[:, None], scores, np.nan)
    judged = judged_scores(task, scores, kl)
    return CellScore(np.array([utility(row, point) for row, point in zip(judged, given, strict=True)]))


def _sampled_j(task: Task) -> bool:
    """Whether samples are all there is to judge policies of a task on J."""
    return task.judged_on == "J" and task.enumeration is None


def _exact(policy: Policy | Requests, task: Task, given: FloatArray, seed: int, link: Link) -> CellScore:
    """Score a policy over all completions; one that can only be sampled has no KL, so what it gained is not known."""
    from paretune.objectives.scoring import Scorer
    from paretune.rl.outcomes import enumeration_of, outcomes, tables

    rows = task.development_rows()
    log_reference, rewards = tables(task, rows, Scorer(task.objectives))
    found = outcomes(policy, rows, enumeration_of(task), log_reference, rewards, (1.0,), seed, link.progress)
    means, kl = found.rewards[:, 0].mean(axis=1), found.kl[:, 0].mean(axis=1)  # [M, K] and [M]
    wanted = task.prompt_preferences(rows, given) if task.contextual else None
    if wanted is None:
        utilities = np.einsum("mk,mk->m", given, means)
    else:
        utilities = np.einsum("mpk,mpk->mp", wanted, found.rewards[:, 0]).mean(axis=1)
    if task.judged_on == "utility" or not (found.exact and np.isfinite(kl).all()):
        return CellScore(utilities)
    if wanted is not None:
        base_rewards = outcome(log_reference, log_reference, rewards).rewards
        best = optimal_outcome(log_reference, rewards, wanted, task.beta)
        own = Outcome(found.rewards[:, 0], found.kl[:, 0])
        gained, possible = (prompt_gains(each, base_rewards, wanted, task.beta) for each in (own, best))
        return CellScore(utilities, gained, possible)
    base = outcome(log_reference, log_reference, rewards).scores(task.beta)
    most = optimal_outcome(log_reference, rewards, given, task.beta).scores(task.beta)
    return CellScore(utilities, *gains(means - task.beta * kl[:, None], base, most, given))
