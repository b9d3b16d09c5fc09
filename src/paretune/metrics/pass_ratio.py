"""Pass ratio: how many completions are good enough, all objectives at once and each alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paretune.core.protocols import MetricRow, MetricValue
from paretune.metrics.seeds import Group, Measure, answers, groups, over_seeds
from paretune.records.study import CellRecord, ObjectiveInfo, StudyRecords


class PassRatio:
    """Share of completions, over all preferences of the task, that reach the pass threshold.

    A completion lacking a reward that is asked for is left out and counted in the reason: it neither passed nor failed.

    Rows by label: empty, the thresholds of all objectives at once; the name of an objective, its own threshold;
    `audit: ...`, an objective no method trains on, which never counts in the first row. Objectives without a threshold
    have no row.

    Source:
        Kong et al. 2025, performance (pass rate).
    """

    name = "pass_ratio"
    title = "Pass ratio"
    unit = "share of completions"
    higher_is_better = True
    needs = ("evaluation",)

    def measure(self, study: StudyRecords) -> Sequence[MetricRow]:
        """Return the rows of every task, method and budget."""
        return [row for group in groups(study) for row in self._rows(group)]

    def _rows(self, group: Group) -> list[MetricRow]:
        limited = [objective for objective in group.task.objectives if objective.pass_threshold is not None]
        trained = [objective for objective in limited if not objective.audit]
        if not trained:
            nothing = MetricValue(None, reason="no objective of the task has a pass threshold")
            rows = [group.row(self.name, "", nothing)]
        else:
            rows = [group.row(self.name, "", _ratio(group, trained))]
        for objective in limited:
            label = f"audit: {objective.name}" if objective.audit else objective.name
            rows.append(group.row(self.name, label, _ratio(group, [objective])))
        return rows


def _ratio(group: Group, objectives: Sequence[ObjectiveInfo]) -> MetricValue:
    counts = {cell.seed: _counts(group, cell, objectives) for cell in group.cells if cell.state == "done"}
    missing = sum(count[2] for count in counts.values() if not isinstance(count, str))
    total = sum(count[1] + count[2] for count in counts.values() if not isinstance(count, str))
    note = f"{missing} of {total} completions lack a reward and are left out" if missing else ""
    return over_seeds(group.cells, _share(counts), note, within=(0, 1))


def _share(counts: dict[int, tuple[int, int, int] | str]) -> Measure:
    def measure(cell: CellRecord) -> float | str:
        count = counts[cell.seed]
        if isinstance(count, str):
            return count
        passed, judged, _ = count
        return passed / judged if judged else "has no completion with all rewards"

    return measure


def _counts(group: Group, cell: CellRecord, objectives: Sequence[ObjectiveInfo]) -> tuple[int, int, int] | str:
    """Count the completions of a cell that passed, that could be judged, and that could not."""
    records = answers(cell, group.task)
    if isinstance(records, str):
        return records
    passed = judged = missing = 0
    for record in records:
        columns = (*record.objectives, *record.audit)
        wanted = record.rewards[:, [columns.index(objective.name) for objective in objectives]]
        limits = np.array([objective.pass_threshold for objective in objectives], dtype=np.float64)
        complete = ~np.isnan(wanted).any(axis=1)
        passed += int((wanted[complete] >= limits).all(axis=1).sum())
        judged += int(complete.sum())
        missing += int((~complete).sum())
    return passed, judged, missing
