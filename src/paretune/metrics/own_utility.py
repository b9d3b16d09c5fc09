"""Utility by kind: what policies are worth to users who do not weigh scores in a sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paretune.core.protocols import MetricRow
from paretune.metrics.exact import ExactScores, exact_scores, without_front
from paretune.metrics.seeds import Group, groups, measured_scores, over_seeds
from paretune.pareto.scalarisation import best_chebyshev, best_threshold, chebyshev_utility, threshold_utility
from paretune.records.study import CellRecord, StudyRecords, TaskInfo

FloatArray = NDArray[np.float64]
BEYOND = 0.1  # of a gain above a threshold, the default of `thresholds`


class Kind(NamedTuple):
    """One kind of user, on one task.

    Attributes:
        value: Utility of scores `[K]` for a preference `[K]`.
        best: Highest utility for a preference of any mixture of scores `[N, K]`.
    """

    value: Callable[[FloatArray, FloatArray], float]
    best: Callable[[FloatArray, FloatArray], float]


class OwnUtility:
    """Utility of the policy assigned to each preference under several utilities: linear, Chebyshev and thresholds.

    In coordinates J a weighted sum reaches the whole front, so a method that trains for another utility is judged on
    that. Every method is judged on all, so that rows compare. Chebyshev: the worst weighted shortfall to the highest
    reward, in shares of the range. Thresholds: pass thresholds, else the middle of the range; what exceeds one counts a
    tenth.

    Rows by label: where the best policies are known, `share of the possible gain, ...`, a ratio of sums over
    preferences, with what mixtures of the exact front's points attain as what is possible; elsewhere `mean utility,
    ...` of measured scores.

    Source:
        Ours; Steuer and Choo 1983 for the Chebyshev utility.
    """

    name = "own_utility"
    title = "Utility by kind"
    unit = "as labelled"
    higher_is_better = True
    needs = ("evaluation", "outcomes", "truth")

    def measure(self, study: StudyRecords) -> Sequence[MetricRow]:
        """Return the rows of every task, method and budget."""
        possible: dict[tuple[str, int, str], FloatArray] = {}  # by task, seed and kind, `[M]`
        return [row for group in groups(study) for row in self._rows(group, study, possible)]

    def _rows(
        self, group: Group, study: StudyRecords, possible: dict[tuple[str, int, str], FloatArray]
    ) -> list[MetricRow]:
        task = group.task
        found = {
            cell.seed: without_front(task) or exact_scores(study, cell, task)
            for cell in group.cells
            if cell.state == "done"
        }

        def share(label: str, kind: Kind) -> Callable[[CellRecord], float | str]:
            def measure(cell: CellRecord) -> float | str:
                scored = found[cell.seed]
                if isinstance(scored, str):
                    return scored
                key = (task.name, cell.seed, label)
                if key not in possible:
                    possible[key] = _possible(scored, task, kind)
                base = _values(kind, np.tile(scored.truth.reference_scores, (len(task.preferences), 1)), task)
                gained, most = _values(kind, scored.scores, task) - base, possible[key] - base
                return float(gained.sum() / most.sum()) if most.sum() > 0 else "has nothing to gain over the base model"

            return measure

        def mean(kind: Kind) -> Callable[[CellRecord], float | str]:
            def measure(cell: CellRecord) -> float | str:
                scores = without_front(task) or measured_scores(cell, task)
                return scores if isinstance(scores, str) else float(_values(kind, scores, task).mean())

            return measure

        title = "share of the possible gain" if task.listed else "mean utility"
        return [
            group.row(
                self.name,
                f"{title}, {label}",
                over_seeds(group.cells, share(label, kind) if task.listed else mean(kind)),
            )
            for label, kind in kinds(task).items()
        ]


def kinds(task: TaskInfo) -> dict[str, Kind]:
    """Return the utilities of a task by their labels."""
    low, high = np.asarray([objective.range for objective in task.trained], dtype=np.float64).T
    limits = np.asarray(
        [
            sum(objective.range) / 2 if objective.pass_threshold is None else objective.pass_threshold
            for objective in task.trained
        ]
    )
    return {
        "linear": Kind(
            lambda scores, wanted: float(scores @ wanted), lambda front, wanted: float((front @ wanted).max())
        ),
        "chebyshev": Kind(
            lambda scores, wanted: float(chebyshev_utility(scores, wanted, high, low)),
            lambda front, wanted: best_chebyshev(front, wanted, high, low),
        ),
        "thresholds": Kind(
            lambda scores, wanted: float(threshold_utility(scores, wanted, limits, BEYOND)),
            lambda front, wanted: best_threshold(front, wanted, limits, BEYOND),
        ),
    }


def _values(kind: Kind, scores: FloatArray, task: TaskInfo) -> FloatArray:
    return np.asarray([kind.value(row, wanted) for row, wanted in zip(scores, task.preferences, strict=True)])


def _possible(scored: ExactScores, task: TaskInfo, kind: Kind) -> FloatArray:
    front = np.concatenate([scored.truth.front_scores, scored.optimum, scored.truth.reference_scores[None]])
    return np.asarray([kind.best(front, wanted) for wanted in task.preferences])
