"""What each method is judged on, utility or J, for each preference, as a difference to a baseline, paired by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paretune.core.protocols import MetricValue
from paretune.report.comparison import Comparison, FloatArray
from paretune.report.estimates import column_mean

BASE = "base model"


@dataclass(frozen=True)
class HeatMap:
    """Differences to one baseline in what the task is judged on.

    Attributes:
        baseline: A method's name, or `BASE`.
        methods: Rows.
        differences: Row by row, one value per preference shown.
        averages: One value per row: the difference averaged over all preferences.
    """

    baseline: str
    methods: tuple[str, ...]
    differences: tuple[tuple[MetricValue, ...], ...]
    averages: tuple[MetricValue, ...]


def baselines(comparison: Comparison) -> list[str]:
    """Return what methods can be compared with: the base model where it was evaluated, then every method."""
    base = [BASE] if comparison.references else []
    return base + [method.name for method in comparison.methods if method.done]


def heat_map(comparison: Comparison, baseline: str, columns: Sequence[int] | None = None) -> HeatMap:
    """Subtract the baseline's utility, or J, from every method's, seed by seed, then average over seeds.

    Args:
        comparison: The comparison.
        baseline: A method's name, or `BASE`.
        columns: Which preferences to return; all if None. The averages are over all in any case.
    """
    shown = list(range(len(comparison.task.preferences))) if columns is None else list(columns)
    ground = _judged(comparison, baseline)
    rows, averages = [], []
    for method in comparison.methods:
        difference = method.judged - ground  # [S, P]
        reason = f"no seed has a {comparison.task.judged_on} of both" if method.done else "no finished cell"
        rows.append(tuple(column_mean(column, comparison.seeds, reason) for column in difference[:, shown].T))
        averages.append(column_mean(difference.mean(axis=1), comparison.seeds, reason))
    return HeatMap(baseline, tuple(method.name for method in comparison.methods), tuple(rows), tuple(averages))


def separable(value: MetricValue) -> bool:
    """Say whether the interval excludes 0; without an interval nothing is separable."""
    return value.low is not None and value.high is not None and (value.low > 0 or value.high < 0)


def _judged(comparison: Comparison, baseline: str) -> FloatArray:
    if baseline == BASE:
        return comparison.base_utilities
    return np.asarray(comparison.method(baseline).judged)
