"""Distance to the best known front: how far a method's policies stay behind those of all methods of the study."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paretune.core.protocols import CEILING, FAMILIES, MetricRow
from paretune.metrics.exact import without_front
from paretune.metrics.seeds import Group, measured_scores, over_seeds, span
from paretune.pareto.distance import additive_epsilon, igd_plus
from paretune.pareto.front import front
from paretune.records.study import CellRecord, StudyRecords

FloatArray = NDArray[np.float64]
INDICATORS: dict[str, Callable[[FloatArray, FloatArray], float]] = {
    "IGD+": igd_plus,
    "additive epsilon": additive_epsilon,
}


class KnownFront(NamedTuple):
    """What the methods of a study reach together on one task instance at one budget.

    Attributes:
        scores: Those that no other policy dominates, `[F, K]`.
        methods: How many methods have policies among the candidates; the base model is none, but may have a point.
    """

    scores: FloatArray
    methods: int


class KnownFronts:
    """The best known front of each task instance and budget, found once for all methods of a study."""

    def __init__(self, study: StudyRecords) -> None:
        self.study = study
        self._found: dict[tuple[str, int, int], KnownFront | str] = {}

    def of(self, cell: CellRecord) -> KnownFront | str:
        """Return the front of a cell's task instance and budget, or why there is none."""
        key = (cell.task, cell.budget_completions, cell.seed)
        if key not in self._found:
            self._found[key] = self._search(*key)
        return self._found[key]

    def _search(self, task: str, budget: int, seed: int) -> KnownFront | str:
        wanted = (task, budget, seed, "done")
        known: list[FloatArray] = []
        methods: set[str] = set()
        for cell in self.study.cells:
            if (cell.task, cell.budget_completions, cell.seed, cell.state) == wanted and cell.family != CEILING:
                scores = measured_scores(cell, self.study.tasks[task])
                if not isinstance(scores, str):
                    known.append(scores)
                    methods |= {cell.method} if cell.family in FAMILIES else set()
        if len(methods) < 2:
            return "has no other method in the study to be compared with"  # to its own front the distance is always 0
        return KnownFront(np.unique(front(np.concatenate(known)), axis=0), len(methods))


def known_front_rows(metric: str, group: Group, fronts: KnownFronts) -> Iterator[MetricRow]:
    """Yield the distances of a method's policies to what no policy of any method of the study dominates.

    By label: `IGD+, to the best known front` and `additive epsilon, to the best known front`. Lower is better. Mean
    scores of the same seed and budget, in units of reward. The front depends on which methods the study has: figures of
    two studies cannot be compared, and a method that alone makes up the front has distance 0. The base model may have a
    point of it and is no method; a ceiling is none either, and has no points.
    """
    found = {seed: fronts.of(cell) for seed, cell in group.done.items()}
    for label, indicator in INDICATORS.items():
        value = over_seeds(group.cells, _distance(group, found, indicator), _note(found), within=(0, np.inf))
        yield group.row(metric, f"{label}, to the best known front (lower is better)", value)


def _distance(
    group: Group, found: dict[int, KnownFront | str], indicator: Callable[[FloatArray, FloatArray], float]
) -> Callable[[CellRecord], float | str]:
    def measure(cell: CellRecord) -> float | str:
        scores, known = without_front(group.task) or measured_scores(cell, group.task), found[cell.seed]
        if isinstance(scores, str) or isinstance(known, str):
            return scores if isinstance(scores, str) else str(known)
        return indicator(scores, known.scores)

    return measure


def _note(found: dict[int, KnownFront | str]) -> str:
    known = [each for each in found.values() if not isinstance(each, str)]
    if not known:
        return ""
    points, methods = (sorted(counts) for counts in zip(*((len(each.scores), each.methods) for each in known)))
    return f"front of {span(points)} points from {span(methods)} methods: it depends on which methods the study has"
