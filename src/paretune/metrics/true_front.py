"""Distance to the true front: how close a method's policies come to the best ones there are, where those are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from paretune.core.protocols import MetricRow
from paretune.metrics.exact import ExactScores, exact_scores, without_front
from paretune.metrics.seeds import Group, Measure, groups, over_seeds
from paretune.pareto.coverage import coverage
from paretune.pareto.distance import additive_epsilon, igd_plus
from paretune.pareto.hypervolume import hypervolume
from paretune.pareto.utility import maximum_utility_loss
from paretune.records.study import CellRecord, StudyRecords

FloatArray = NDArray[np.float64]
TOLERANCE = 0.1  # of the largest gain over the base model in each objective


class TrueFront:
    """Indicators against the exact front, in coordinates `J_k = E r_k - beta KL`.

    There the attainable set is convex, and the best policies dominate every other. The reference point is, in each
    objective, the lowest J on the exact front or the base model's if that is lower: a property of the task instance,
    not of any result. The base model itself would not do: where objectives compete, hardly any policy is above it in
    all of them. Scores are exact, so there is no choice among noisy candidates to correct for.

    Rows by label: `relative hypervolume, ...`, the method's divided by the exact front's, with those of the base
    model and of the best policies for the same preferences in the reason, since so few points do not fill a front;
    `IGD+`, `additive epsilon` and `maximum utility loss`, which are better when lower; `coverage F1`, of the best
    policies for the task's own preferences, at a tolerance of 10 % of the largest gain in each objective.

    Source:
        Zitzler and Thiele 1998; Ishibuchi et al. 2015; Zitzler et al. 2003; Zintgraf et al. 2015; Yang, Sun and
        Narasimhan 2019.
    """

    name = "true_front"
    title = "True front"
    unit = "as labelled"
    higher_is_better = True
    needs = ("evaluation", "outcomes", "truth")

    def measure(self, study: StudyRecords) -> Sequence[MetricRow]:
        """Return the rows of every task, method and budget; one only for tasks whose front is not known."""
        return [row for group in groups(study) for row in self._rows(group, study)]

    def _rows(self, group: Group, study: StudyRecords) -> list[MetricRow]:
        task = group.task
        found = {
            cell.seed: without_front(task) or exact_scores(study, cell, task)
            for cell in group.cells
            if cell.state == "done"
        }
        note = _note(found)
        volume = f"relative hypervolume, {len(task.preferences)} candidates"
        figures: dict[str, Callable[[ExactScores], float | str]] = {
            volume: lambda each: relative_hypervolume(each, each.scores)
        }
        if task.listed:
            figures |= {
                "IGD+ (lower is better)": lambda each: igd_plus(each.scores, each.truth.front_scores),
                "additive epsilon (lower is better)": lambda each: additive_epsilon(
                    each.scores, each.truth.front_scores
                ),
                "maximum utility loss (lower is better)": lambda each: maximum_utility_loss(
                    each.scores, each.optimum, task.preferences
                ),
                f"coverage F1, tolerance {TOLERANCE:.0%} of the largest gain": _coverage,
            }
        return [
            group.row(
                self.name,
                label,
                over_seeds(group.cells, _measure(found, figure), note * (label == volume), _within(label)),
            )
            for label, figure in figures.items()
        ]


def _within(label: str) -> tuple[float, float]:
    return (0, np.inf) if "lower is better" in label else (0, 1)


def reference_point(each: ExactScores) -> FloatArray:
    """Return the reference point of a task instance, `[K]`."""
    return np.asarray(np.minimum(each.truth.front_scores.min(axis=0), each.truth.reference_scores))


def relative_hypervolume(each: ExactScores, scores: FloatArray) -> float | str:
    """Return the hypervolume of scores `[N, K]` as a share of the exact front's, or why there is none.

    The best policies for the study's own preferences count towards the front: they lie between its points, a little
    beyond the steps of so many, and a finer grid of them than the front's own would otherwise exceed 1.
    """
    front = np.unique(np.concatenate([each.truth.front_scores, each.optimum]), axis=0)
    whole = hypervolume(front, reference_point(each))
    return hypervolume(scores, reference_point(each)) / whole if whole > 0 else "has no front above its reference point"


def _note(found: dict[int, ExactScores | str]) -> str:
    scored = [each for each in found.values() if not isinstance(each, str)]
    pairs = [
        (relative_hypervolume(each, each.truth.reference_scores[None]), relative_hypervolume(each, each.optimum))
        for each in scored
    ]
    measured = np.array([pair for pair in pairs if not isinstance(pair[0], str)], dtype=np.float64)
    if len(measured) == 0:
        return ""
    base, best = measured.mean(axis=0)
    points = " or ".join(str(count) for count in sorted({len(each.truth.front_scores) for each in scored}))
    return (
        f"the base model alone has {base:.3g}, the best policies for the same preferences {best:.3g}; front of "
        f"{points} points; reference point: the lowest J of front and base model"
    )


def _coverage(each: ExactScores) -> float | str:
    gain = (each.truth.front_scores - each.truth.reference_scores).max(axis=0)
    return coverage(each.scores, each.optimum, TOLERANCE * np.maximum(gain, 0)).f1


def _measure(found: dict[int, ExactScores | str], figure: Callable[[ExactScores], float | str]) -> Measure:
    def measure(cell: CellRecord) -> float | str:
        scored = found[cell.seed]
        return scored if isinstance(scored, str) else figure(scored)

    return measure
