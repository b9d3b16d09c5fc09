"""Comparing methods prompt by prompt and seed by seed: means, tie groups, and differences with their intervals."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from paretune.benchmark.pairing import Lineup, Row
from paretune.core.preferences import SAME_PREFERENCE
from paretune.metrics.judged import SHARE, less_price
from paretune.records.evaluation import weighed_sum
from paretune.records.per_prompt import PerPrompt
from paretune.statistics.intervals import Interval, mean_interval
from paretune.statistics.paired import paired_difference, paired_p_value
from paretune.statistics.ties import holm_adjusted, tie_groups

FloatArray = NDArray[np.float64]
LEVEL = 0.05  # of all comparisons of one family together
KL = "KL, nats"


@dataclass(frozen=True)
class Measure:
    """One quantity of every method of a lineup.

    Attributes:
        name: What it is.
        higher_is_better: None where neither is: KL is a price.
        values: Of each row that has it, `[S]`, or `[S, P]` where the same prompts count in every seed.
        reasons: Why a row has none, by its label.
        note: What was left out of all rows.
    """

    name: str
    higher_is_better: bool | None
    values: dict[str, FloatArray]
    reasons: dict[str, str]
    note: str = ""

    def mean(self, label: str) -> Interval | None:
        """Return a row's mean over seeds with its interval; None where it has no value."""
        return mean_interval(self.values[label]) if label in self.values else None

    def per_seed(self, label: str) -> FloatArray:
        """Return a row's value of each seed, `[S]`."""
        found = self.values[label]
        return found if found.ndim == 1 else np.asarray(found.mean(axis=1))


@dataclass(frozen=True)
class Difference:
    """One method less another, paired by seed and prompt.

    Attributes:
        first: Label of the one.
        second: Label of the other.
        interval: Mean difference over seeds.
        p_value: Of the paired t-test on seeds; None with one seed.
        adjusted: The same after Holm, over the family that it was asked for with.
    """

    first: str
    second: str
    interval: Interval
    p_value: float | None
    adjusted: float | None

    @property
    def verdict(self) -> str:
        """`higher`, `lower` or `not told apart`; with one seed there is none."""
        if self.adjusted is None:
            return "no verdict: one seed"
        if self.adjusted > LEVEL:
            return "not told apart"
        return "higher" if self.interval.mean > 0 else "lower"


@dataclass(frozen=True)
class Compared:
    """A lineup with all that is compared.

    Attributes:
        lineup: What is compared.
        measures: The one that methods are ranked by first.
        subject: Label of the method that the others are held against.
    """

    lineup: Lineup
    measures: tuple[Measure, ...]
    subject: str

    @cached_property
    def ranks(self) -> dict[str, dict[str, int]]:
        """Rank of each method in each measure where higher is better, by measure and label; none with one seed."""
        found = {}
        for measure in self.measures:
            labels = self.rivals(measure)
            if measure.higher_is_better and labels and len(self.lineup.seeds) > 1:
                groups = tie_groups([measure.per_seed(label) for label in labels], 1 - LEVEL)
                found[measure.name] = dict(zip(labels, groups.ranks, strict=True))
        return found

    def rivals(self, measure: Measure) -> list[str]:
        """Return the labels of the methods that have a value: without base model and ceiling."""
        return [row.label for row in self.lineup.rows if row.ranked and row.label in measure.values]

    def against_subject(self, measure: Measure) -> list[Difference]:
        """Return the subject less each other method, corrected together after Holm."""
        labels = self.rivals(measure)
        others = [label for label in labels if label != self.subject]
        return _differences(measure, [(self.subject, label) for label in others if self.subject in labels])

    def all_pairs(self, measure: Measure) -> list[Difference]:
        """Return the difference of every two methods, corrected together after Holm."""
        return _differences(measure, list(itertools.combinations(self.rivals(measure), 2)))

    @property
    def prompts(self) -> int:
        """How many test prompts every policy has answered."""
        return len(next(iter(self.lineup.rows[0].cells.values())).prompts)


def compared(lineup: Lineup, subject: str = "") -> Compared:
    """Compare the methods of a lineup.

    Args:
        lineup: What may be compared.
        subject: Label of the method that the others are held against; by default who leads.
    """
    measures = tuple(_measures(lineup))
    made = Compared(lineup, measures, subject)
    if subject in {row.label for row in lineup.rows if row.ranked}:
        return made
    labels = made.rivals(measures[0])
    leader = max(labels, key=lambda label: float(measures[0].per_seed(label).mean()), default="")
    return Compared(lineup, measures, leader)


def _differences(measure: Measure, pairs: Sequence[tuple[str, str]]) -> list[Difference]:
    p_values = [paired_p_value(measure.per_seed(first), measure.per_seed(second)) for first, second in pairs]
    tested = [each for each in p_values if each is not None]  # all of them, or none: they share their seeds
    adjusted: Sequence[float | None] = holm_adjusted(tested).tolist() if tested else p_values
    return [
        Difference(first, second, paired_difference(measure.values[first], measure.values[second]), p_value, holm)
        for (first, second), p_value, holm in zip(pairs, p_values, adjusted, strict=True)
    ]


def _measures(lineup: Lineup) -> Iterator[Measure]:
    """Yield what is compared: first what the task is judged on."""
    if lineup.task.listed:
        share = _by_seed(lineup, SHARE, _share)
        if any(row.ranked and row.label in share.values for row in lineup.rows):
            yield share
    if lineup.task.judged_on == "J":
        yield _by_prompt(lineup, "J", lambda cell: _j_of(cell, _wanted(cell)))
    yield _by_prompt(lineup, "utility", _utilities)
    for index, each in enumerate(lineup.task.trained):
        yield _by_prompt(lineup, each.name, _objective(index))
    for each in lineup.task.objectives:
        digests = {dict(cell.tested["rewards"]).get(each.name) for row in lineup.rows for cell in row.cells.values()}
        if each.audit and len(digests) == 1 and None not in digests:  # else scored by another reward somewhere
            yield _by_prompt(lineup, f"{each.name} (audit)", _audit(each.name))
    yield _by_prompt(lineup, KL, lambda cell: cell.kl, None)


def _objective(index: int) -> Callable[[PerPrompt], FloatArray]:
    return lambda cell: np.asarray(cell.rewards[..., index])


def _audit(name: str) -> Callable[[PerPrompt], FloatArray]:
    return lambda cell: np.asarray(cell.audit_rewards[..., cell.audit.index(name)])


def _wanted(cell: PerPrompt) -> FloatArray:
    """Return what the users of a cell's preferences want of each prompt, `[M, P, K]`, or `[M, 1, K]`."""
    return cell.preferences[:, None] if cell.prompt_preferences is None else cell.prompt_preferences


def _utilities(cell: PerPrompt) -> FloatArray:
    return weighed_sum(cell.rewards, _wanted(cell))


def _j_of(cell: PerPrompt, wanted: FloatArray) -> FloatArray:
    return less_price(weighed_sum(cell.rewards, wanted), cell.kl, cell.beta)


def _by_prompt(
    lineup: Lineup, name: str, measure: Callable[[PerPrompt], FloatArray], higher_is_better: bool | None = True
) -> Measure:
    """Measure every row, mean over preferences; prompts that one row has no value for count for none.

    Args:
        lineup: The rows.
        name: What it is.
        measure: From a cell to `[M, P]`; NaN where there is no value.
        higher_is_better: See `Measure`.
    """
    found = {
        row.label: np.stack([measure(row.cells[seed]).mean(axis=0) for seed in lineup.seeds]) for row in lineup.rows
    }
    reasons = {}
    for label, each in found.items():
        empty = np.flatnonzero(np.isnan(each).all(axis=1))
        if len(empty):
            seed = lineup.seeds[int(empty[0])]
            reasons[label] = f"no {name} of any prompt, seed {seed}"
    values = {label: each for label, each in found.items() if label not in reasons}
    if not values:
        return Measure(name, higher_is_better, {}, reasons)
    shared = np.all(np.isfinite(list(values.values())), axis=0)  # [S, P]
    if shared.all():
        return Measure(name, higher_is_better, values, reasons)
    if not np.all(shared.any(axis=1)):
        return Measure(name, higher_is_better, {}, reasons | dict.fromkeys(values, "no prompt that every method has"))
    means = {
        label: np.array([row[kept].mean() for row, kept in zip(each, shared, strict=True)])
        for label, each in values.items()
    }
    note = f"{int((~shared).sum())} of {shared.size} prompts of all seeds left out, as a method lacks a reward there"
    return Measure(name, higher_is_better, means, reasons, note)


def _by_seed(lineup: Lineup, name: str, measure: Callable[[Lineup, Row, int], float | str]) -> Measure:
    values: dict[str, FloatArray] = {}
    reasons: dict[str, str] = {}
    for row in lineup.rows:
        found = [measure(lineup, row, seed) for seed in lineup.seeds]
        missing = [f"{each}, seed {seed}" for each, seed in zip(found, lineup.seeds, strict=True) if type(each) is str]
        if missing:
            reasons[row.label] = missing[0]
        else:
            values[row.label] = np.array(found, dtype=np.float64)
    return Measure(name, True, values, reasons)


def _share(lineup: Lineup, row: Row, seed: int) -> float | str:
    """Return how much of the gain in J over the base model that was possible was gained: a ratio of sums."""
    cell, base, best = row.cells[seed], lineup.base.get(seed), lineup.best.get(seed)
    if base is None or best is None:
        return "no record of what can be reached"
    if (
        best.preferences.shape != cell.preferences.shape
        or np.abs(best.preferences - cell.preferences).max() > SAME_PREFERENCE
    ):
        return "no best policies for its preferences"
    wanted = _wanted(cell)
    before = weighed_sum(base.rewards, wanted)
    gained, possible = ((_j_of(each, wanted) - before).mean() for each in (cell, best))
    if not np.isfinite(gained):
        return "no KL or no score"
    return float(gained / possible) if possible > 0 else "nothing to gain over the base model"
