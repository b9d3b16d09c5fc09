"""What a task is judged on, of a finished cell: as it is, and as a gain over the base model."""

from __future__ import annotations

import numpy as np

from paretune.metrics.captured_share import share
from paretune.metrics.exact import exact_scores
from paretune.metrics.performance import achieved_j, achieved_utility
from paretune.metrics.seeds import Measure
from paretune.records.study import CellRecord, StudyRecords, TaskInfo


def noun_of(task: TaskInfo) -> str:
    """Name what the seeds of a task are compared in."""
    if task.judged_on == "J":
        return "captured share" if task.listed else "achieved J"
    return "achieved utility"


def quality(study: StudyRecords, task: TaskInfo) -> Measure:
    """Return the measure of what the seeds of a task are compared in."""
    everything = np.ones(len(task.preferences), dtype=np.bool_)
    if task.judged_on != "J":
        return achieved_utility(task, everything)
    if task.listed:
        return lambda cell: share(exact_scores(study, cell, task), task.preferences, everything)
    return achieved_j(task, study)


def gain(study: StudyRecords, task: TaskInfo) -> Measure:
    """Return the measure of the same, less what the base model has: its captured share and its KL are 0."""
    own = quality(study, task)
    if noun_of(task) == "captured share":
        return own

    def measure(cell: CellRecord) -> float | str:
        reached = own(cell)
        if isinstance(reached, str):
            return reached
        if (cell.task, cell.seed) not in study.references:
            return "has no evaluation of the base model"
        base = np.array([study.base_utility(cell.task, cell.seed, preference) for preference in task.preferences])
        if np.isnan(base).any():
            return "has an objective without any reward of the base model"
        return float(np.mean(reached) - base.mean())

    return measure
