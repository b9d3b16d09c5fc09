"""Pareto-optimality: what the set of a method's policies is worth, with and without what evaluation noise adds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paretune.core.protocols import MetricRow
from paretune.metrics.exact import without_front
from paretune.metrics.judged import mean_range
from paretune.metrics.known_front import KnownFronts, known_front_rows
from paretune.metrics.prompts import prompt_scores
from paretune.metrics.seeds import Group, Measure, answers, groups, measured_scores, names, over_seeds
from paretune.pareto.controllability import controllability
from paretune.pareto.cross_fitting import EstimatePair
from paretune.pareto.polar import hypervolume_pair
from paretune.pareto.utility import expected_utility_pair
from paretune.records.study import CellRecord, StudyRecords, TaskInfo


class Pairs(NamedTuple):
    """What is measured of one cell.

    Attributes:
        volume: Hypervolume above the task's reference point.
        utility: Expected utility of the best candidate for each of the task's preferences.
        dropped: Prompts left out for all candidates, since a reward is missing.
        prompts: Prompts in all.
    """

    volume: EstimatePair
    utility: EstimatePair
    dropped: int
    prompts: int


class ParetoOptimality:
    """Hypervolume and expected utility of one candidate per preference, naive and cross-fitted.

    Naive figures take the best candidates in hindsight, so evaluation noise raises them, the more so the more
    candidates there are and the closer they lie together. Cross-fitted ones choose on one half of the prompts and value
    on the other, and lean low. The truth lies between. Every method enters exactly one candidate per preference of the
    task, or has no value. Candidates and reference point stand in the labels: figures that differ in either cannot be
    compared. A prompt on which any candidate lacks a reward is left out for all of them.

    Rows by label: `naive, ...` and `cross-fitted, ...`, the hypervolume; `expected utility, naive, ...` and
    `expected utility, cross-fitted, ...`; `evaluation sd: ...`, the noise of a candidate's mean on an objective;
    `controllability: ...`, from -1 to 1, how surely more weight on an objective raises its score, and `controllability:
    mean` over objectives; where completions cannot be listed, the distances of `metrics.known_front`, elsewhere those
    to the exact front are in `metrics.true_front`. Intervals are Student-t over seeds.

    Source:
        Kong et al. 2025, Pareto-optimality; Zitzler and Thiele 1998; Zintgraf et al. 2015; Somers 1962 for
        controllability.
    """

    name = "pareto_optimality"
    title = "Pareto-optimality"
    unit = "as labelled"
    higher_is_better = True
    needs = ("evaluation", "outcomes")

    def measure(self, study: StudyRecords) -> Sequence[MetricRow]:
        """Return the rows of every task, method and budget."""
        fronts = KnownFronts(study)
        return [row for group in groups(study) for row in self._rows(group, fronts)]

    def _rows(self, group: Group, fronts: KnownFronts) -> list[MetricRow]:
        task, found = group.task, {seed: _pairs(cell, group.task) for seed, cell in group.done.items()}
        candidates = f"{len(task.preferences)} candidates"
        corner = ", ".join(f"{coordinate:g}" for coordinate in task.reference_point)
        above = f"{candidates}, reference point ({corner})"
        figures: dict[str, Callable[[Pairs], float | str]] = {
            f"naive, {above}": lambda pairs: pairs.volume.naive,
            f"cross-fitted, {above}": lambda pairs: _cross_fitted(pairs.volume),
            f"expected utility, naive, {candidates}": lambda pairs: pairs.utility.naive,
            f"expected utility, cross-fitted, {candidates}": lambda pairs: _cross_fitted(pairs.utility),
        }
        figures |= {f"evaluation sd: {name}": _noise(index) for index, name in enumerate(names(task))}
        note = _dropped(found)
        rows = [
            group.row(self.name, label, over_seeds(group.cells, _measure(found, figure), note, _within(label, task)))
            for label, figure in figures.items()
        ]
        if not task.listed:
            rows += known_front_rows(self.name, group, fronts)
        return [*rows, *self._controllability(group)]

    def _controllability(self, group: Group) -> Iterator[MetricRow]:
        task = group.task
        found = {seed: _control(cell, task) for seed, cell in group.done.items()}
        every = np.eye(len(task.trained), dtype=np.bool_)
        parts = {**dict(zip(names(task), every, strict=True)), "mean": np.ones(len(every), dtype=np.bool_)}
        for label, chosen in parts.items():
            value = over_seeds(group.cells, _chosen(found, chosen), within=(-1, 1))
            yield group.row(self.name, f"controllability: {label}", value)


def _within(label: str, task: TaskInfo) -> tuple[float, float]:
    """Return what is possible while rewards are within their ranges."""
    if label.startswith("expected utility"):
        return mean_range(task)
    if label.startswith(("naive", "cross-fitted")):  # of a hypervolume
        highest = np.asarray([objective.range[1] for objective in task.trained])
        return 0, float(np.prod(np.maximum(highest - task.reference_point, 0)))
    return 0, np.inf


def _control(cell: CellRecord, task: TaskInfo) -> NDArray[np.float64] | str:
    """Return how surely more weight raises the score of each objective, `[K]`, or why that is not known."""
    scores = measured_scores(cell, task)
    if isinstance(scores, str):
        return scores
    found = controllability(task.preferences, scores)
    same = np.flatnonzero(np.isnan(found))
    return f"has no two preferences that differ in the weight of {names(task)[same[0]]}" if len(same) else found


def _chosen(found: dict[int, NDArray[np.float64] | str], chosen: NDArray[np.bool_]) -> Measure:
    def measure(cell: CellRecord) -> float | str:
        each = found[cell.seed]
        return each if isinstance(each, str) else float(each[chosen].mean())

    return measure


def _pairs(cell: CellRecord, task: TaskInfo) -> Pairs | str:
    missing = without_front(task) or measured_scores(cell, task)
    records = answers(cell, task)
    if isinstance(missing, str) or isinstance(records, str):
        return missing if isinstance(missing, str) else str(records)
    found = prompt_scores(records)
    if isinstance(found, str):
        return found
    scores, dropped = found
    return Pairs(
        hypervolume_pair(scores, task.reference_point),
        expected_utility_pair(scores, task.preferences),
        dropped,
        scores.shape[1] + dropped,
    )


def _measure(found: dict[int, Pairs | str], figure: Callable[[Pairs], float | str]) -> Measure:
    def measure(cell: CellRecord) -> float | str:
        pairs = found[cell.seed]
        return pairs if isinstance(pairs, str) else figure(pairs)

    return measure


def _cross_fitted(pair: EstimatePair) -> float | str:
    return f"has no cross-fitted figure ({pair.reason})" if pair.cross_fitted is None else pair.cross_fitted


def _noise(index: int) -> Callable[[Pairs], float | str]:
    def noise(pairs: Pairs) -> float | str:
        sd = pairs.volume.evaluation_sd
        return f"has no evaluation sd ({pairs.volume.reason})" if sd is None else sd[index]

    return noise


def _dropped(found: dict[int, Pairs | str]) -> str:
    pairs = [each for each in found.values() if not isinstance(each, str)]
    dropped = sum(each.dropped for each in pairs)
    if not dropped:
        return ""
    total = sum(each.prompts for each in pairs)
    return f"{dropped} of {total} prompts left out for all candidates: a reward is missing"
