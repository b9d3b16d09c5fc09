"""A figure of each preference: its mean over preferences, and the preference at which it is worst."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paretune.core.preferences import preference_label
from paretune.core.protocols import MetricValue
from paretune.metrics.seeds import ANYWHERE, Group, joined, names, over_seeds, preference_labels
from paretune.records.evaluation import EvaluationRecord
from paretune.records.study import CellRecord, TaskInfo

FloatArray = NDArray[np.float64]
Bools = NDArray[np.bool_]
Figure = Callable[[EvaluationRecord, FloatArray], float | str]


class Figures(NamedTuple):
    """A figure of one cell for each preference of its task.

    Attributes:
        values: `[M]`; NaN where there is none.
        reasons: Why, `[M]`; empty where there is one, and where the figure has no meaning for a preference.
    """

    values: FloatArray
    reasons: tuple[str, ...]

    def mean(self, chosen: Bools) -> float | str:
        """Return the mean over the chosen preferences `[M]`, or why one of them has none."""
        lost = [self.reasons[index] for index in np.flatnonzero(chosen) if self.reasons[index]]
        return lost[0] if lost else float(self.values[chosen].mean())

    def worst(self, highest: bool = False) -> int | str:
        """Return the preference with the lowest value, or the highest, or why that is not known."""
        lost = [reason for reason in self.reasons if reason]
        if lost:
            return lost[0]
        if np.isnan(self.values).all():
            return "has no preference for which the figure has a meaning"
        return int(np.nanargmax(self.values) if highest else np.nanargmin(self.values))


def figures(cell: CellRecord, task: TaskInfo, figure: Figure) -> Figures:
    """Return a figure of the evaluation that answers each preference of the task.

    Args:
        cell: A finished cell.
        task: Its task.
        figure: From an evaluation and its preference `[K]` to a value, or to the name of what it lacks.
    """
    values, reasons = np.full(len(task.preferences), np.nan), []
    for index, preference in enumerate(task.preferences):
        record = cell.evaluation(preference)
        found = "evaluation" if record is None else figure(record, preference)
        if isinstance(found, str):
            reasons.append(f"has no {found} for {preference_label(preference, names(task))}")
        else:
            values[index] = found
            reasons.append("")
    return Figures(values, tuple(reasons))


def none_because(task: TaskInfo, reason: str) -> Figures:
    """Return the figures of a cell that has none for one reason."""
    count = len(task.preferences)
    return Figures(np.full(count, np.nan), (reason,) * count)


def mean_of(
    group: Group,
    found: Mapping[int, Figures],
    chosen: Bools | None = None,
    note: str = "",
    within: tuple[float, float] = ANYWHERE,
) -> MetricValue:
    """Return the mean over chosen preferences, all if None, and over seeds.

    Args:
        group: The cells.
        found: Seed -> figures, of the finished ones.
        chosen: `[M]`.
        note: Goes to the end of the reason.
        within: Lowest and highest possible value.
    """
    everything = np.ones(len(group.task.preferences), dtype=np.bool_) if chosen is None else chosen
    return over_seeds(group.cells, lambda cell: found[cell.seed].mean(everything), note, within)


def worst_of(
    group: Group,
    found: Mapping[int, Figures],
    highest: bool = False,
    note: str = "",
    within: tuple[float, float] = ANYWHERE,
) -> MetricValue:
    """Return the mean over seeds of the worst preference's figure; the reason names the preferences.

    Worst in each seed by itself: of noisy figures the worst leans beyond the truth, the more so the more there are.

    Args:
        group: The cells.
        found: Seed -> figures, of the finished ones.
        highest: Whether the highest is worst.
        note: Goes to the end of the reason.
        within: Lowest and highest possible value.
    """
    places = {seed: each.worst(highest) for seed, each in found.items()}

    def measure(cell: CellRecord) -> float | str:
        place = places[cell.seed]
        return place if isinstance(place, str) else float(found[cell.seed].values[place])

    known = {seed: place for seed, place in places.items() if not isinstance(place, str)}
    return over_seeds(group.cells, measure, joined(_named(group.task, known), note), within)


def _named(task: TaskInfo, places: Mapping[int, int]) -> str:
    """Say which preferences are meant, and in which seeds where they differ."""
    labels, seeds = preference_labels(task), dict[int, list[int]]()
    for seed in sorted(places):
        seeds.setdefault(places[seed], []).append(seed)
    if len(seeds) <= 1:
        return "".join(f"at {labels[place]}" for place in seeds)
    return " and ".join(
        f"at {labels[place]} (seed{'s' * (len(mine) > 1)} {', '.join(map(str, mine))})" for place, mine in seeds.items()
    )
