"""Stability: how much a method's quality and cost depend on the seed, and whether its rank does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from statistics import fmean

import numpy as np

from paretune.core.protocols import FAMILIES, MetricRow, MetricValue
from paretune.metrics.covering import cost_of, stage_sum
from paretune.metrics.judged import noun_of, quality
from paretune.metrics.seeds import BySeed, Group, Measure, by_seed, groups, joined
from paretune.metrics.training_efficiency import COSTS
from paretune.records.study import StudyRecords
from paretune.statistics.spread import Spread, coefficient_of_variation, standard_deviation

FEWEST = 3  # seeds; two show one difference, and nothing of how differences vary
LOWER = "(lower is better)"
VARIATION = "coefficient of variation"


class Stability:
    """Spread over seeds: of quality, which is what the task is judged on, of training cost, and of the method's rank.

    Quality is achieved utility; on tasks judged on J the captured share where a method has one, else achieved J. All
    seeds count, and those that are lost are named: a method that fails on some seeds is not stable on the rest. Below
    three seeds there is no value. On generated tasks a seed draws the task too: how tasks differ is in every figure.

    Rows by label, the seeds' own figures beside each: `quality: sd`, the standard deviation, with each seed's distance
    to the mean; `quality: coefficient of variation`, the same as a share of the mean's size, missing where the mean
    cannot be told from 0; `quality: worst seed`, the lowest; `quality: best minus worst`, with each seed's distance to
    the worst; `cost: seconds, coefficient of variation` and `cost: seconds, worst seed`, the dearest, of training, and
    both of `completions`; `rank stability`.

    Rank stability, from -1 to 1, is how surely the method beats, and is beaten by, the same methods on another seed:
    over all pairs of seeds and all other methods, the share of pairs on which the order of the two is the same, less
    that on which it is reversed. 0 is what chance gives. Its mean over methods is Kendall's tau of the ranking of all
    methods, averaged over pairs of seeds, and stands in the reason, with the ranks. Methods with fewer than three seeds
    in common are not compared, nor a base model or a ceiling with anything.

    Intervals: of the standard deviation chi-square, of the coefficient of variation modified McKay; both hold for
    normal seeds and are too narrow where extremes are common. None of a worst seed, a range, or rank stability, whose
    pairs of seeds overlap.

    Source:
        Kong et al. 2025, stability; Vangel 1996; Kendall 1938.
    """

    name = "stability"
    title = "Stability over seeds"
    unit = "as labelled"
    higher_is_better = True
    needs = ("evaluation", "outcomes", "truth")

    def measure(self, study: StudyRecords) -> Sequence[MetricRow]:
        """Return the rows of every task, method and budget."""
        every = list(groups(study))
        found = [by_seed(group.cells, quality(study, group.task)) for group in every]
        rows: list[MetricRow] = []
        for group, mine in zip(every, found, strict=True):
            rivals = {
                other.method: each.values
                for other, each in zip(every, found, strict=True)
                if _ranked_with(group, other)
            }
            rows += self._quality(group, mine, study)
            for unit in ("seconds", "completions"):
                rows += self._cost(group, by_seed(group.cells, _spent(unit)), unit)
            rows.append(group.row(self.name, "rank stability", rank_stability(group.method, mine, rivals)))
        return rows

    def _quality(self, group: Group, found: BySeed, study: StudyRecords) -> Iterator[MetricRow]:
        noun = noun_of(study, group.task)
        yield group.row(self.name, f"quality: sd {LOWER}", _sd(found, noun))
        yield group.row(self.name, f"quality: {VARIATION} {LOWER}", _variation(found, noun))
        yield group.row(self.name, "quality: worst seed", _worst(found, min, noun))
        yield group.row(self.name, f"quality: best minus worst {LOWER}", _range(found, noun))

    def _cost(self, group: Group, found: BySeed, unit: str) -> Iterator[MetricRow]:
        yield group.row(self.name, f"cost: {unit}, {VARIATION} {LOWER}", _variation(found, unit))
        yield group.row(self.name, f"cost: {unit}, worst seed {LOWER}", _worst(found, max, unit))


def rank_stability(method: str, own: BySeed, rivals: Mapping[str, Mapping[int, float]]) -> MetricValue:
    """Return how surely a method has the same order to its rivals on another seed.

    Args:
        method: Its name.
        own: Its quality by seed.
        rivals: Quality by seed of all methods that are ranked, itself included; empty where it is not ranked.
    """
    few = _too_few(own)
    if few or method not in rivals:
        return MetricValue(None, reason=joined(own.missing, few or "no method: it is not ranked"))
    agreement = {pair: _agreement(rivals[pair[0]], rivals[pair[1]]) for pair in combinations(sorted(rivals), 2)}
    every = {pair: each for pair, each in agreement.items() if each}
    mine = [each for pair, each in every.items() if method in pair]
    if not mine:
        return MetricValue(None, reason=joined(own.missing, f"no other method has {FEWEST} seeds in common with it"))
    seeds = sorted({seed for each in mine for seed in each})
    compared = f"compared with {len(mine)} of {len(rivals) - 1} other methods; Kendall's tau over all: "
    overall = fmean(fmean(each.values()) for each in every.values())
    return MetricValue(
        fmean(fmean(each.values()) for each in mine),
        per_seed={seed: fmean(each[seed] for each in mine if seed in each) for seed in seeds},
        reason=joined(
            own.missing, "no interval: its pairs of seeds overlap", _ranks(method, rivals), f"{compared}{overall:.2f}"
        ),
    )


def _agreement(first: Mapping[int, float], second: Mapping[int, float]) -> dict[int, float]:
    """Return how surely two methods have on each seed the order they have on the others; empty with too few in common.

    A seed on which the two are equal agrees with no order.
    """
    order = {seed: float(np.sign(first[seed] - second[seed])) for seed in sorted(first) if seed in second}
    if len(order) < FEWEST:
        return {}
    return {seed: fmean(mine * other for each, other in order.items() if each != seed) for seed, mine in order.items()}


def _ranked_with(group: Group, other: Group) -> bool:
    """Whether two groups are compared: methods of one task and budget, and of one class of feedback where it counts."""
    mine, theirs = group.cells[0], other.cells[0]
    alike = (mine.task, mine.budget_completions) == (theirs.task, theirs.budget_completions)
    alike = alike and (mine.feedback == theirs.feedback or not group.task.contextual)
    return alike and mine.family in FAMILIES and theirs.family in FAMILIES


def _ranks(method: str, rivals: Mapping[str, Mapping[int, float]]) -> str:
    """Say which rank a method has on its seeds; methods without a value there are not counted."""
    seeds: dict[int, list[int]] = {}
    for seed, value in sorted(rivals[method].items()):
        above = sum(each.get(seed, -np.inf) > value for each in rivals.values())
        seeds.setdefault(above + 1, []).append(seed)
    parts = (
        f"{rank} (seed{'s' * (len(mine) > 1)} {', '.join(map(str, mine))})" for rank, mine in sorted(seeds.items())
    )
    return f"rank {', '.join(parts)}"


def _spent(unit: str) -> Measure:
    return lambda cell: stage_sum(cell.stages, cost_of(cell, COSTS[unit], unit))


def _sd(found: BySeed, noun: str) -> MetricValue:
    return _spread(found, noun, standard_deviation, 1.0)


def _variation(found: BySeed, noun: str) -> MetricValue:
    return _spread(found, noun, coefficient_of_variation, abs(fmean(found.values.values() or [0.0])))


def _spread(found: BySeed, noun: str, measure: Callable[[Sequence[float]], Spread], size: float) -> MetricValue:
    """Return a measure of spread; beside it each seed's distance to the mean, as a share of `size`."""
    few, values = _too_few(found), list(found.values.values())
    if few:
        return MetricValue(None, reason=joined(found.missing, few))
    spread, mean = measure(values), fmean(values)
    reason = joined(found.missing, spread.reason, noun)
    if spread.value is None:
        return MetricValue(None, reason=reason)
    own = {seed: (value - mean) / size for seed, value in found.values.items()}
    return MetricValue(spread.value, spread.low, spread.high, own, reason)


def _worst(found: BySeed, pick: Callable[..., int], noun: str) -> MetricValue:
    few = _too_few(found)
    if few:
        return MetricValue(None, reason=joined(found.missing, few))
    seed = pick(sorted(found.values), key=lambda each: found.values[each])
    said = f"seed {seed} of {len(found.values)} seeds"
    return MetricValue(found.values[seed], per_seed=found.values, reason=joined(found.missing, said, noun))


def _range(found: BySeed, noun: str) -> MetricValue:
    few = _too_few(found)
    if few:
        return MetricValue(None, reason=joined(found.missing, few))
    lowest = min(found.values.values())
    own = {seed: value - lowest for seed, value in found.values.items()}
    said = f"over {len(own)} seeds: no interval"
    return MetricValue(max(own.values()), per_seed=own, reason=joined(found.missing, said, noun))


def _too_few(found: BySeed) -> str:
    count = len(found.values)
    return f"needs {FEWEST} seeds or more" if count < FEWEST else ""
