"""Performance: the utility a user gets from the policy that answers their preference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from paretune.core.protocols import MetricRow
from paretune.metrics.audit import audit_rows
from paretune.metrics.by_preference import mean_of
from paretune.metrics.judged import SAMPLED, above_base, achieved, achieved_utility, mean_range
from paretune.metrics.over_optimisation import over_optimisation_rows
from paretune.metrics.own_utility import kinds, own_utility
from paretune.metrics.regret import BestKnown, regret_rows
from paretune.metrics.seeds import (
    Group,
    Measure,
    answers,
    groups,
    left_out,
    over_seeds,
    preference_labels,
)
from paretune.records.study import CellRecord, StudyRecords, TaskInfo


class Performance:
    """Achieved utility, the mean of `preference . scores` over preferences.

    The scores are those of the policy the method assigned to the preference, not of its best policy in hindsight: the
    user gets the assigned one. A preference needs the scores of the objectives it weighs, a mean over preferences those
    of all; a seed that lacks one has no value.

    Rows by label: empty, all preferences of the task; `seen` and `unseen`, the grid and the random points no method was
    given; `gain over base`, the difference to the base model on the same prompts, paired by seed; `preference: ...`,
    one; `kl: all` and `kl: ...`, achieved KL to the base model in nats, which is not utility but its price; `J: all`,
    utility less `beta KL`, with beta of the seed's own task instance: what a task may be judged on in its place;
    `chebyshev: all`, `seen` and `unseen`, for users who mind the worst weighted shortfall to the highest reward instead
    of the sum, in shares of the ranges, 0 at best. Of the worst preference and of regret see `metrics.regret`, of audit
    objectives `metrics.audit`, of over-optimisation and length `metrics.over_optimisation`.

    Intervals are over seeds: Student's t; from 20 seeds the nested bootstrap where a value is a mean over prompts.

    Source:
        Kong et al. 2025, performance; Steuer and Choo 1983 for the Chebyshev utility.
    """

    name = "performance"
    title = "Achieved utility"
    unit = "reward"
    higher_is_better = True
    needs = ("evaluation", "reference", "outcomes", "truth")

    def measure(self, study: StudyRecords) -> Sequence[MetricRow]:
        """Return the rows of every task, method and budget."""
        known = BestKnown(study)
        return [row for group in groups(study) for row in self._rows(group, study, known)]

    def _rows(self, group: Group, study: StudyRecords, known: BestKnown) -> list[MetricRow]:
        task, cells = group.task, group.cells
        everything = np.ones(len(task.preferences), dtype=np.bool_)
        parts = {"": everything, "seen": ~task.unseen, "unseen": task.unseen}
        single = dict(zip(preference_labels(task), np.eye(len(everything), dtype=np.bool_), strict=True))
        parts |= {f"preference: {label}": chosen for label, chosen in single.items()}
        rows = [
            group.row(
                self.name,
                label,
                over_seeds(cells, achieved_utility(task, chosen), _note(group, chosen), mean_range(task, chosen)),
            )
            for label, chosen in parts.items()
            if chosen.any()
        ]
        note = _note(group, everything)
        low, high = mean_range(task)
        utilities = {seed: achieved(study, cell, "utility") for seed, cell in group.done.items()}
        gains = {seed: above_base(study, group.done[seed], each) for seed, each in utilities.items()}
        rows.append(
            group.row(self.name, "gain over base", mean_of(group, gains, note=note, within=(low - high, high - low)))
        )
        for label, chosen in {"all": everything, **single}.items():
            rows.append(group.row(self.name, f"kl: {label}", over_seeds(cells, _kl(task, chosen), within=(0, np.inf))))
        net = {seed: achieved(study, cell, "J") for seed, cell in group.done.items()}
        rows.append(group.row(self.name, "J: all", mean_of(group, net, note=note, within=(-np.inf, high))))
        chebyshev = {seed: own_utility(cell, task, kinds(task)["chebyshev"]) for seed, cell in group.done.items()}
        for label, chosen in {"all": everything, "seen": ~task.unseen, "unseen": task.unseen}.items():
            if chosen.any():
                value = mean_of(group, chebyshev, chosen, _note(group, chosen), within=(-np.inf, 0))
                rows.append(group.row(self.name, f"chebyshev: {label}", value))
        return [
            *rows,
            *regret_rows(self.name, group, study, known),
            *audit_rows(self.name, group, study),
            *over_optimisation_rows(self.name, group, study),
        ]


def _note(group: Group, chosen: NDArray[np.bool_]) -> str:
    return left_out(group.cells, group.task, chosen)


def _kl(task: TaskInfo, chosen: NDArray[np.bool_]) -> Measure:
    def measure(cell: CellRecord) -> float | str:
        records = answers(cell, task, chosen)
        if isinstance(records, str):
            return records
        found = float(np.mean([record.kl for record in records]))
        return found if np.isfinite(found) else f"has no {SAMPLED}"

    return measure
