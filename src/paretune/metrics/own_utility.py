"""Utility by kind: what policies are worth to users who do not weigh scores in a sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paretune.core.protocols import MetricRow
from paretune.metrics.by_preference import Figures, figures, mean_of, none_because
from paretune.metrics.exact import ExactScores, exact_scores, without_front
from paretune.metrics.seeds import ANYWHERE, Group, groups, over_seeds
from paretune.pareto.scalarisation import best_chebyshev, best_threshold, chebyshev_utility, threshold_utility
from paretune.records.evaluation import EvaluationRecord
from paretune.records.study import CellRecord, StudyRecords, TaskInfo

FloatArray = NDArray[np.float64]
BEYOND = 0.1  # of a gain above a threshold, the default of `thresholds`


class Kind(NamedTuple):
    """One kind of user, on one task.

    Attributes:
        value: Utility of scores `[K]` for a preference `[K]`.
        best: Highest utility for a preference of any mixture of scores `[N, K]`.
        lacking: What the task lacks for this kind to be defined; empty where it lacks nothing.
    """

    value: Callable[[FloatArray, FloatArray], float]
    best: Callable[[FloatArray, FloatArray], float]
    lacking: str = ""


class OwnUtility:
    """Utility of the policy assigned to each preference under several utilities: linear, Chebyshev and thresholds.

    In coordinates J a weighted sum reaches the whole front, so a method that trains for another utility is judged on
    that. Every method is judged on all, so that rows compare. Chebyshev: the worst weighted shortfall to the highest
    reward, in shares of the range. Thresholds: pass thresholds, else the middle of the range; what exceeds one counts a
    tenth.

    Rows by label: where the best policies are known, `share of the possible gain, ...`, a ratio of sums over
    preferences, with what mixtures of the exact front's points attain as what is possible; elsewhere `mean utility,
    ...` of measured scores. A kind that needs ranges has no value where an objective's range has no ends.

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
                scored = kind.lacking or found[cell.seed]
                if isinstance(scored, str):
                    return scored
                key = (task.name, cell.seed, label)
                if key not in possible:
                    possible[key] = _possible(scored, task, kind)
                base = _values(kind, np.tile(scored.truth.reference_scores, (len(task.preferences), 1)), task)
                gained, most = _values(kind, scored.scores, task) - base, possible[key] - base
                return float(gained.sum() / most.sum()) if most.sum() > 0 else "has nothing to gain over the base model"

            return measure

        if task.listed:
            return [
                group.row(
                    self.name,
                    f"share of the possible gain, {label}",
                    over_seeds(group.cells, share(label, kind), within=(-np.inf, 1)),
                )
                for label, kind in kinds(task).items()
            ]
        return [
            group.row(
                self.name,
                f"mean utility, {label}",
                mean_of(
                    group,
                    {seed: own_utility(cell, task, kind) for seed, cell in group.done.items()},
                    within=_ends(kind, task),
                ),
            )
            for label, kind in kinds(task).items()
        ]


def own_utility(cell: CellRecord, task: TaskInfo, kind: Kind) -> Figures:
    """Return the utility of one kind that the measured scores of a finished cell have for each preference."""
    lacking = without_front(task) or kind.lacking
    if lacking:
        return none_because(task, lacking)

    def figure(record: EvaluationRecord, preference: FloatArray) -> float | str:
        wanted = preference > 0
        lost = np.flatnonzero(wanted & np.isnan(record.scores))
        if len(lost):
            return f"{record.objectives[lost[0]]} reward"
        return kind.value(np.where(wanted, record.scores, 0.0), preference)  # what has no weight may have no score

    return figures(cell, task, figure)


def kinds(task: TaskInfo) -> dict[str, Kind]:
    """Return the utilities of a task by their labels."""
    low, high = np.asarray([objective.range for objective in task.trained], dtype=np.float64).T
    bounded = np.isfinite(low) & np.isfinite(high)
    limits = np.asarray(
        [sum(each.range) / 2 if each.pass_threshold is None else each.pass_threshold for each in task.trained]
    )  # not finite in the middle of a range without ends
    return {
        "linear": Kind(
            lambda scores, wanted: float(scores @ wanted), lambda front, wanted: float((front @ wanted).max())
        ),
        "chebyshev": Kind(
            lambda scores, wanted: float(chebyshev_utility(scores, wanted, high, low)),
            lambda front, wanted: best_chebyshev(front, wanted, high, low),
            _lacking(task, bounded, "range with two ends"),
        ),
        "thresholds": Kind(
            lambda scores, wanted: float(threshold_utility(scores, wanted, limits, BEYOND)),
            lambda front, wanted: best_threshold(front, wanted, limits, BEYOND),
            _lacking(task, np.isfinite(limits), "pass threshold, and no range with two ends"),
        ),
    }


def _lacking(task: TaskInfo, known: NDArray[np.bool_], what: str) -> str:
    lost = np.flatnonzero(~known)
    return f"has an objective without a {what} ({task.trained[lost[0]].name})" if len(lost) else ""


def _ends(kind: Kind, task: TaskInfo) -> tuple[float, float]:
    """Return the lowest and highest possible mean utility: that of the ends of all ranges, as no kind falls in any."""
    low, high = np.asarray([objective.range for objective in task.trained], dtype=np.float64).T
    if kind.lacking or not np.isfinite([low, high]).all():
        return ANYWHERE
    worst, best = (float(_values(kind, np.tile(end, (len(task.preferences), 1)), task).mean()) for end in (low, high))
    return worst, best


def _values(kind: Kind, scores: FloatArray, task: TaskInfo) -> FloatArray:
    return np.asarray([kind.value(row, wanted) for row, wanted in zip(scores, task.preferences, strict=True)])


def _possible(scored: ExactScores, task: TaskInfo, kind: Kind) -> FloatArray:
    front = np.concatenate([scored.truth.front_scores, scored.optimum, scored.truth.reference_scores[None]])
    return np.asarray([kind.best(front, wanted) for wanted in task.preferences])
