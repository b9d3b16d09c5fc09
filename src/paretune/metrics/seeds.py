"""What all metrics share: cells that differ only in their seed become one value, and no lost seed goes unmentioned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paretune.core.preferences import preference_label
from paretune.core.protocols import MetricRow, MetricValue
from paretune.records.evaluation import EvaluationRecord
from paretune.records.study import CellRecord, StudyRecords, TaskInfo
from paretune.statistics.intervals import BOOTSTRAP_FROM, Interval, mean_interval

MAX_DIGITS = 6  # of a weight in a label
ANYWHERE = (-np.inf, np.inf)

FloatArray = NDArray[np.float64]
Measure = Callable[[CellRecord], float | FloatArray | str]  # a finished cell's value, one a prompt, or why it has none


class NoValueError(Exception):
    """What a measure may raise of a cell that has no value: its text says why, and `by_seed` tells it."""


class Group(NamedTuple):
    """One method on one task at one budget, with all its seeds.

    Attributes:
        task: The task.
        method: Name of the method.
        budget_completions: The budget.
        cells: One a seed, finished or not.
    """

    task: TaskInfo
    method: str
    budget_completions: int
    cells: tuple[CellRecord, ...]

    @property
    def done(self) -> dict[int, CellRecord]:
        """Its finished cells by seed."""
        return {cell.seed: cell for cell in self.cells if cell.state == "done"}

    def row(self, metric: str, label: str, value: MetricValue) -> MetricRow:
        """Return the row that holds a value of this group."""
        return MetricRow(self.task.name, self.method, self.budget_completions, metric, value, label)


def groups(study: StudyRecords) -> Iterator[Group]:
    """Yield the groups of a study in the order of its cells."""
    cells: dict[tuple[str, str, int], list[CellRecord]] = {}
    for cell in study.cells:
        cells.setdefault((cell.task, cell.method, cell.budget_completions), []).append(cell)
    for (task, method, budget), members in cells.items():
        yield Group(study.tasks[task], method, budget, tuple(members))


class BySeed(NamedTuple):
    """What was measured of the cells of a group.

    Attributes:
        values: Seed -> finite value; a mean over prompts where there is one a prompt.
        prompts: Those of the prompts `[P]` of each seed that has them.
        missing: How many seeds have a value, which have none, and why; empty where all have one.
    """

    values: dict[int, float]
    prompts: list[FloatArray]
    missing: str


def by_seed(cells: Sequence[CellRecord], measure: Measure) -> BySeed:
    """Measure every finished cell, and name those that have no value.

    Args:
        cells: One a seed.
        measure: From a finished cell to its value, or to the reason why it has none, which it may also raise
            (`NoValueError`); where the value is a mean over prompts, to those of the prompts `[P]`.
    """
    values: dict[int, float] = {}
    prompts: list[FloatArray] = []
    lost = []
    for cell in cells:
        result = _result(cell, measure)
        if isinstance(result, str):
            lost.append(f"seed {cell.seed} {result}")
        elif not np.isfinite(result).all():
            lost.append(f"seed {cell.seed}: its value is not finite")
        else:
            values[cell.seed] = float(np.mean(result))
            prompts += [result] if isinstance(result, np.ndarray) else []
    missing = f"{len(values)} of {len(cells)} seeds: {', '.join(lost)}" if lost else ""
    return BySeed(values, prompts, missing or ("" if values else "no cells"))


def over_seeds(
    cells: Sequence[CellRecord], measure: Measure, note: str = "", within: tuple[float, float] = ANYWHERE
) -> MetricValue:
    """Measure every finished cell and return the mean over seeds with its interval.

    Student-t over seeds; from 20 seeds with a value for each of P prompts the nested bootstrap, which the reason names.

    Args:
        cells: One a seed.
        measure: See `by_seed`.
        note: What a reader must know although there is a value; goes to the end of the reason.
        within: Lowest and highest possible value: an interval ends there at the latest.

    Returns:
        The value. Seeds without one are left out of the mean and named in the reason.
    """
    values, prompts, missing = by_seed(cells, measure)
    if len(values) >= BOOTSTRAP_FROM and len(prompts) == len(values) and len({each.shape for each in prompts}) == 1:
        found = mean_interval(np.stack(prompts))
        return MetricValue(
            found.mean, *_ends(found, within), values, joined(missing, f"interval: {found.method}", note)
        )
    return seed_mean(values, missing, note, within)


def seed_mean(
    values: Mapping[int, float], missing: str = "", note: str = "", within: tuple[float, float] = ANYWHERE
) -> MetricValue:
    """Return the mean of one finite value a seed with its Student-t interval.

    Args:
        values: Seed -> value.
        missing: Which seeds have none, and why.
        note: Goes to the end of the reason.
        within: Lowest and highest possible value: the interval ends there at the latest.
    """
    if not values:
        return MetricValue(None, reason=joined(missing, note))
    found = mean_interval(list(values.values()))
    return MetricValue(found.mean, *_ends(found, within), values, joined(missing, found.reason, note))


def answers(cell: CellRecord, task: TaskInfo, chosen: NDArray[np.bool_] | None = None) -> list[EvaluationRecord] | str:
    """Return a cell's evaluations on the test prompts in the order of the task's preferences, or why one is missing.

    Args:
        cell: The cell.
        task: Its task.
        chosen: Which of the task's preferences are wanted, `[M]`; all if None.
    """
    found = []
    for preference in task.preferences if chosen is None else task.preferences[chosen]:
        record = cell.evaluation(preference)
        if record is None:
            return f"has no evaluation for {preference_label(preference, names(task))}"
        found.append(record)
    return found


def measured_scores(cell: CellRecord, task: TaskInfo) -> NDArray[np.float64] | str:
    """Return the scores of a cell for each preference of the task, `[M, K]`, or why one is missing."""
    records = answers(cell, task)
    if isinstance(records, str):
        return records
    everything = np.ones(task.preferences.shape, dtype=np.bool_)
    return _unscored(records, everything) or np.array([record.scores for record in records])


def measured_utilities(cell: CellRecord, task: TaskInfo, chosen: NDArray[np.bool_]) -> NDArray[np.float64] | str:
    """Return the utilities of a cell for the chosen preferences of the task, or why one is missing.

    Args:
        cell: The cell.
        task: Its task.
        chosen: Which of the task's preferences count, `[M]`.
    """
    records = answers(cell, task, chosen)
    if isinstance(records, str):
        return records
    pairs = zip(records, task.preferences[chosen], strict=True)
    wanted = [objectives_wanted(record, preference) for record, preference in pairs]
    return _unscored(records, wanted) or cell.utilities(task.preferences[chosen])


def objectives_wanted(record: EvaluationRecord, preference: FloatArray) -> NDArray[np.bool_]:
    """Return which objectives count for the user of a preference on some prompt, `[K]`; it is the record's own."""
    if record.prompt_preferences is None:
        return np.asarray(preference > 0)
    return np.asarray((record.prompt_preferences > 0).any(axis=0))


def names(task: TaskInfo) -> list[str]:
    """Return the names of the K objectives."""
    return [objective.name for objective in task.trained]


def preference_labels(task: TaskInfo) -> list[str]:
    """Name the task's preferences, each differently: with as many decimals as that takes where two look alike."""
    labels = [preference_label(preference, names(task)) for preference in task.preferences]
    for digits in range(3, MAX_DIGITS + 1):
        counts = Counter(labels)
        for index, label in enumerate(labels):
            if counts[label] > 1:
                labels[index] = preference_label(task.preferences[index], names(task), digits)
    counts = Counter(labels)
    return [f"{label} (#{index})" if counts[label] > 1 else label for index, label in enumerate(labels)]


def left_out(cells: Sequence[CellRecord], task: TaskInfo, chosen: NDArray[np.bool_]) -> str:
    """Say how many completions lack a reward that counts, by objective; empty when none does.

    Args:
        cells: One a seed; those that are not finished do not count.
        task: Their task.
        chosen: Which of the task's preferences count, `[M]`.
    """
    done = [cell for cell in cells if cell.state == "done"]
    answered = [(cell.evaluation(preference), preference) for cell in done for preference in task.preferences[chosen]]
    known = [(record, preference) for record, preference in answered if record is not None]
    if not any(np.isnan(record.rewards[:, : len(record.objectives)]).any() for record, _ in known):
        return ""
    counted = [(record.rewards, record.counts(preference)) for record, preference in known]
    parts = []
    for index, name in enumerate(names(task)):
        rewards = [rows[wanted[:, index], index] for rows, wanted in counted]
        missing = sum(int(np.isnan(column).sum()) for column in rewards)
        if missing:
            parts.append(f"{missing} of {sum(map(len, rewards))} without {name} reward")
    return f"completions left out of a mean: {', '.join(parts)}" if parts else ""


def _unscored(records: Sequence[EvaluationRecord], wanted: Iterable[NDArray[np.bool_]]) -> str:
    """Name the first score that is wanted, `[K]` of each record, and missing; empty when none is."""
    for record, row in zip(records, wanted, strict=True):
        for index in np.flatnonzero(row & np.isnan(record.scores)):
            label = preference_label(record.preference, record.objectives)
            return f"has no {record.objectives[index]} reward for {label}"
    return ""


def _ends(found: Interval, within: tuple[float, float]) -> tuple[float | None, float | None]:
    """Return the ends of an interval within what is possible; the mean stays inside whatever rounding did to it."""
    if found.low is None or found.high is None:
        return None, None
    lowest, highest = within
    return max(found.low, min(lowest, found.mean)), min(found.high, max(highest, found.mean))


def _result(cell: CellRecord, measure: Measure) -> float | FloatArray | str:
    if cell.state != "done":
        return _state(cell)
    try:
        return measure(cell)
    except NoValueError as why:
        return str(why)


def _state(cell: CellRecord) -> str:
    if cell.state == "pending":
        return "has not finished"
    return f"failed ({cell.reason or 'unknown'})"


def not_measured(measurement: str) -> str:
    """Say of a cell that a measurement left no record of it; `measure_all` adds what to do where none was asked for."""
    return f"has no record of {measurement}"


def span(counts: Sequence[int]) -> str:
    """Write counts as `5`, or `3 to 5` where they differ; at least one, in rising order."""
    return f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"


def joined(*reasons: str) -> str:
    """Return several reasons as one, those that are empty left out."""
    return "; ".join(reason for reason in reasons if reason)
