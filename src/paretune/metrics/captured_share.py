"""Captured share: how much of what could be gained over the base model was gained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from paretune.core.protocols import MetricRow
from paretune.metrics.exact import ExactScores, exact_scores
from paretune.metrics.seeds import Group, Measure, groups, over_seeds, preference_labels
from paretune.records.study import StudyRecords

FloatArray = NDArray[np.float64]
Bools = NDArray[np.bool_]
MOST = (-np.inf, 1.0)  # no policy is better than the best, and any may be worse than the base model


class CapturedShare:
    """Gain in `J = w . E r - beta KL` over the base model, as a share of the best policy's gain.

    A ratio of sums over preferences, `sum_w (J - J_base) / sum_w (J* - J_base)`: 0 for the base model, 1 for the best
    policies there are, negative below the base. A mean of the preferences' own shares would be ruled by those with next
    to nothing to gain; a preference's share therefore never stands without the gain it is a share of. Where what users
    want depends on the prompt, `J = E_x[w(x) . E r - beta KL]`.

    Rows by label: empty, all preferences of the task; `seen` and `unseen`; `preference: ...`, one. The possible gain,
    averaged over preferences and seeds, closes the reason.

    Source:
        Ours; the best policy in closed form is that of Korbak et al. 2022.
    """

    name = "captured_share"
    title = "Captured share"
    unit = "share of the possible gain in J"
    higher_is_better = True
    needs = ("evaluation", "outcomes", "truth")

    def measure(self, study: StudyRecords) -> Sequence[MetricRow]:
        """Return the rows of every task, method and budget; one only for tasks whose optimum is not known."""
        return [row for group in groups(study) for row in self._rows(group, study)]

    def _rows(self, group: Group, study: StudyRecords) -> list[MetricRow]:
        task = group.task
        everything = np.ones(len(task.preferences), dtype=np.bool_)
        parts = {"": everything}
        if task.listed:
            parts |= {"seen": ~task.unseen, "unseen": task.unseen}
            single = zip(preference_labels(task), np.eye(len(everything), dtype=np.bool_), strict=True)
            parts |= {f"preference: {label}": chosen for label, chosen in single}
        found = {seed: exact_scores(study, cell, task) for seed, cell in group.done.items()}
        return [
            group.row(
                self.name,
                label,
                over_seeds(group.cells, _share(group, found, chosen), _note(group, found, chosen), MOST),
            )
            for label, chosen in parts.items()
            if chosen.any()
        ]


def share(scored: ExactScores | str, preferences: FloatArray, chosen: Bools) -> float | str:
    """Return the captured share of the chosen ones `[M]` of a task's preferences `[M, K]`, or why there is none."""
    if isinstance(scored, str):
        return scored
    gained, possible = scored.gains(preferences, chosen)
    if not possible.sum() > 0:
        return "has nothing to gain over the base model"
    return float(gained.sum() / possible.sum())


def _share(group: Group, found: dict[int, ExactScores | str], chosen: Bools) -> Measure:
    return lambda cell: share(found[cell.seed], group.task.preferences, chosen)


def _note(group: Group, found: dict[int, ExactScores | str], chosen: Bools) -> str:
    """Say how much there is to gain, the denominator: J per preference, averaged over seeds."""
    possible = [
        float(each.gains(group.task.preferences, chosen)[1].mean())
        for each in found.values()
        if not isinstance(each, str)
    ]
    return f"possible gain {np.mean(possible):.3g} in J" if possible else ""
