"""Pareto-optimality: the hypervolume of the scores a method reaches over all preferences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paretune.core.protocols import MetricRow, MetricValue
from paretune.metrics.seeds import Group, Measure, groups, left_out, measured_scores, over_seeds
from paretune.pareto.hypervolume import hypervolume
from paretune.records.study import CellRecord, StudyRecords


class ParetoOptimality:
    """Naive hypervolume of one score vector per preference, above the task's frozen reference point.

    Naive: evaluation noise raises it, the more so the more candidates there are and the closer they lie together. Every
    method therefore enters exactly one candidate per preference of the task, or has no value. Candidates and reference
    point stand in the label, since figures that differ in either cannot be compared.

    Source:
        Kong et al. 2025, Pareto-optimality; Zitzler and Thiele 1998.
    """

    name = "pareto_optimality"
    title = "Hypervolume (naive)"
    unit = "volume"
    higher_is_better = True

    def measure(self, study: StudyRecords) -> Sequence[MetricRow]:
        """Return one row for every task, method and budget."""
        return [group.row(self.name, _label(group), _value(group)) for group in groups(study)]


def _label(group: Group) -> str:
    corner = ", ".join(f"{coordinate:g}" for coordinate in group.task.reference_point)
    return f"naive, {len(group.task.preferences)} candidates, reference point ({corner})"


def _value(group: Group) -> MetricValue:
    everything = np.ones(group.task.preferences.shape, dtype=np.bool_)
    return over_seeds(group.cells, _volume(group), left_out(group.cells, group.task, everything))


def _volume(group: Group) -> Measure:
    def measure(cell: CellRecord) -> float | str:
        scores = measured_scores(cell, group.task)
        return scores if isinstance(scores, str) else hypervolume(scores, group.task.reference_point)

    return measure
