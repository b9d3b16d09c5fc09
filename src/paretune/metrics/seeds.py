"""What all metrics share: cells that differ only in their seed become one value, and no lost seed goes unmentioned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paretune.core.preferences import preference_label
from paretune.core.protocols import MetricRow, MetricValue
from paretune.records.evaluation import EvaluationRecord
from paretune.records.study import CellRecord, StudyRecords, TaskInfo
from paretune.statistics.intervals import mean_interval

Measure = Callable[[CellRecord], float | str]  # a finished cell's value, or why it has none
SAME_PREFERENCE = 1e-9  # preferences pass through JSON and Parquet, both exact; room for what a user computes


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


def over_seeds(cells: Sequence[CellRecord], measure: Measure, note: str = "") -> MetricValue:
    """Measure every finished cell and return the mean over seeds with its Student-t interval.

    Args:
        cells: One a seed.
        measure: From a finished cell to its value, or to the reason why it has none.
        note: What a reader must know although there is a value; goes to the end of the reason.

    Returns:
        The value. Seeds without one are left out of the mean and named in the reason.
    """
    values: dict[int, float] = {}
    lost = []
    for cell in cells:
        result = measure(cell) if cell.state == "done" else _state(cell)
        if isinstance(result, str):
            lost.append(f"seed {cell.seed} {result}")
        elif not np.isfinite(result):
            lost.append(f"seed {cell.seed}: its value is not finite")
        else:
            values[cell.seed] = float(result)
    missing = f"{len(values)} of {len(cells)} seeds: {', '.join(lost)}" if lost else ""
    if not values:
        return MetricValue(None, reason=_joined(missing or "no cells", note))
    interval = mean_interval(list(values.values()))
    return MetricValue(interval.mean, interval.low, interval.high, values, _joined(missing, interval.reason, note))


def answers(cell: CellRecord, task: TaskInfo) -> list[EvaluationRecord] | str:
    """Return a cell's evaluations on the test prompts in the order of the task's preferences, or why one is missing."""
    found = []
    for preference in task.preferences:
        record = next((each for each in cell.evaluations if _answers(each, preference)), None)
        if record is None:
            return f"has no evaluation for {preference_label(preference, names(task))}"
        found.append(record)
    return found


def measured_scores(cell: CellRecord, task: TaskInfo) -> NDArray[np.float64] | str:
    """Return the scores of a cell for each preference of the task, `[M, K]`, or why one is missing."""
    records = answers(cell, task)
    if isinstance(records, str):
        return records
    for record in records:
        for name, score in zip(record.objectives, record.scores, strict=True):
            if np.isnan(score):
                return f"has no {name} reward for {preference_label(record.preference, record.objectives)}"
    return np.array([record.scores for record in records])


def names(task: TaskInfo) -> list[str]:
    """Return the names of the K objectives."""
    return [objective.name for objective in task.trained]


def preference_labels(task: TaskInfo) -> list[str]:
    """Name the task's preferences, each differently, also where two look alike in two decimals."""
    labels = [preference_label(preference, names(task)) for preference in task.preferences]
    return [f"{label} (#{index})" if labels.count(label) > 1 else label for index, label in enumerate(labels)]


def left_out(cells: Sequence[CellRecord], task: TaskInfo, chosen: NDArray[np.bool_]) -> str:
    """Say how many completions lack a reward, by objective; empty when none does.

    Args:
        cells: One a seed; those that are not finished do not count.
        task: Their task.
        chosen: Which of the task's preferences count, `[M]`.
    """
    records = [
        record
        for cell in cells
        if cell.state == "done"
        for record in cell.evaluations
        if any(_answers(record, preference) for preference in task.preferences[chosen])
    ]
    total = sum(len(record.prompt_ids) for record in records)
    counts = {
        name: sum(int(np.isnan(record.rewards[:, index]).sum()) for record in records)
        for index, name in enumerate(names(task))
    }
    missing = ", ".join(f"{count} of {total} without {name} reward" for name, count in counts.items() if count)
    return f"completions left out of a mean: {missing}" if missing else ""


def _answers(record: EvaluationRecord, preference: NDArray[np.float64]) -> bool:
    return record.split == "test" and bool(np.abs(record.preference - preference).max() <= SAME_PREFERENCE)


def _state(cell: CellRecord) -> str:
    if cell.state == "pending":
        return "has not finished"
    return f"failed ({cell.reason or 'unknown'})"


def _joined(*reasons: str) -> str:
    return "; ".join(reason for reason in reasons if reason)
