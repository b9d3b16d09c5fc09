"""What a task is judged on, for all metrics: the value of an evaluation, of a finished cell, and of seeds compared.

On a task judged on utility that is what an evaluation's scores are worth to its user; on one judged on J, that less
`beta KL`. Seeds of a task judged on J are compared by captured share where a method has one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from paretune.core.protocols import FAMILIES
from paretune.core.task import JudgedOn
from paretune.metrics.by_preference import Figure, Figures, figures, none_because
from paretune.metrics.captured_share import share
from paretune.metrics.exact import exact_scores
from paretune.metrics.prompts import prompt_scores, wanted_of_prompts
from paretune.metrics.seeds import Measure, answers, measured_utilities, objectives_wanted
from paretune.records.evaluation import EvaluationRecord
from paretune.records.study import CellRecord, StudyRecords, TaskInfo

FloatArray = NDArray[np.float64]
SHARE = "captured share"
SAMPLED = "KL (its policy can only be sampled)"


def price_of_kl(study: StudyRecords, task: TaskInfo, seed: int, noun: JudgedOn) -> float | None:
    """Return what a nat of KL costs on a task instance in utility (nothing) or J; None where beta is not on record."""
    return study.beta(task.name, seed) if noun == "J" else 0.0


def less_price(utilities: FloatArray, kl: FloatArray, price: float) -> FloatArray:
    """Return utilities less the price of their KL; a KL that is not known does not matter where it costs nothing."""
    return utilities - price * kl if price else utilities


def judged_figure(study: StudyRecords, task: TaskInfo, seed: int, noun: JudgedOn | None = None) -> Figure | str:
    """Return what an evaluation is worth to the user of a preference, or why that is not known on a task instance.

    Args:
        study: Knows the instance's beta.
        task: Its task.
        seed: Names the instance.
        noun: `utility` or `J`; what the task is judged on if None.
    """
    price = price_of_kl(study, task, seed, noun or task.judged_on)
    if price is None:
        return "has no record of its task instance's beta"

    def figure(record: EvaluationRecord, preference: FloatArray) -> float | str:
        lost = np.flatnonzero(objectives_wanted(record, preference) & np.isnan(record.scores))
        if len(lost):
            return f"{record.objectives[lost[0]]} reward"
        if price and not np.isfinite(record.kl):
            return SAMPLED
        return float(less_price(np.asarray(record.utility(preference)), np.asarray(record.kl), price))

    return figure


def achieved(study: StudyRecords, cell: CellRecord, noun: JudgedOn | None = None) -> Figures:
    """Return what the policies of a finished cell that answer each preference of its task are worth to its user.

    Args:
        study: The cell's.
        cell: A finished cell.
        noun: `utility` or `J`; what its task is judged on if None.
    """
    task = study.tasks[cell.task]
    figure = judged_figure(study, task, cell.seed, noun)
    return none_because(task, figure) if isinstance(figure, str) else figures(cell, task, figure)


def above_base(study: StudyRecords, cell: CellRecord, reached: Figures) -> Figures:
    """Return by how much utility or J of the policies of a finished cell exceed the base model's, whose KL is 0."""
    task = study.tasks[cell.task]
    base = np.array([study.base_utility(cell.task, cell.seed, preference) for preference in task.preferences])
    known = (cell.task, cell.seed) in study.references
    why = "has an objective without any reward of the base model" if known else "has no evaluation of the base model"
    reasons = (reason or why * bool(lost) for reason, lost in zip(reached.reasons, np.isnan(base), strict=True))
    return Figures(reached.values - base, tuple(reasons))


def achieved_utility(task: TaskInfo, chosen: NDArray[np.bool_]) -> Measure:
    """Return the measure of the mean utility over chosen preferences `[M]`, of each prompt where that is known."""
    points = task.preferences[chosen]

    def measure(cell: CellRecord) -> float | FloatArray | str:
        utilities, records = measured_utilities(cell, task, chosen), answers(cell, task, chosen)
        if isinstance(utilities, str) or isinstance(records, str):
            return utilities if isinstance(utilities, str) else str(records)
        found = prompt_scores(records)
        if isinstance(found, str) or found[1]:  # the mean then is over completions, not over prompts
            return float(utilities.mean())
        wanted = wanted_of_prompts(records)
        if wanted is not None:
            return np.asarray(np.einsum("npk,npk->p", found[0], wanted) / len(points))
        return np.asarray(np.einsum("npk,nk->p", found[0], points) / len(points))

    return measure


def utility_ranges(task: TaskInfo) -> FloatArray:
    """Return the lowest and the highest utility that rewards within their ranges have for each preference, `[M, 2]`."""
    ranges = np.asarray([objective.range for objective in task.trained], dtype=np.float64)  # [K, 2]
    if task.contextual:  # on a prompt its user may want any one objective alone
        return np.tile([ranges[:, 0].min(), ranges[:, 1].max()], (len(task.preferences), 1))
    weights = task.preferences[..., None]
    weighed = np.multiply(weights, ranges, out=np.zeros((*task.preferences.shape, 2)), where=weights > 0)
    return np.asarray(weighed.sum(axis=1))


def mean_range(task: TaskInfo, chosen: NDArray[np.bool_] | None = None) -> tuple[float, float]:
    """Return the lowest and the highest possible mean utility over chosen preferences `[M]`, over all if None."""
    every = np.ones(len(task.preferences), dtype=np.bool_) if chosen is None else chosen
    low, high = utility_ranges(task)[every].mean(axis=0).tolist()
    return low, high


def noun_of(study: StudyRecords, task: TaskInfo) -> str:
    """Name what the seeds of a task are compared in: captured share only where a finished cell of a method has one."""
    if task.judged_on != "J":
        return "achieved utility"
    measure = _captured_share(study, task)
    cells = (each for each in study.cells if (each.task, each.state) == (task.name, "done") and each.family in FAMILIES)
    known = task.listed and any(not isinstance(measure(cell), str) for cell in cells)
    return SHARE if known else "achieved J"


def quality(study: StudyRecords, task: TaskInfo) -> Measure:
    """Return the measure of what the seeds of a task are compared in, see `noun_of`."""
    everything = np.ones(len(task.preferences), dtype=np.bool_)
    if task.judged_on != "J":
        return achieved_utility(task, everything)
    if noun_of(study, task) == SHARE:
        return _captured_share(study, task)
    return lambda cell: achieved(study, cell).mean(everything)


def gain(study: StudyRecords, task: TaskInfo) -> Measure:
    """Return the measure of the same, less what the base model has: its captured share and its KL are 0."""
    everything = np.ones(len(task.preferences), dtype=np.bool_)
    if noun_of(study, task) == SHARE:
        return _captured_share(study, task)
    return lambda cell: above_base(study, cell, achieved(study, cell)).mean(everything)


def _captured_share(study: StudyRecords, task: TaskInfo) -> Measure:
    everything = np.ones(len(task.preferences), dtype=np.bool_)
    return lambda cell: share(exact_scores(study, cell, task), task.preferences, everything)
