"""Inference efficiency: what an answer of a method's policy costs, beside its base model in the same seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from paretune.core.protocols import MetricRow, MetricValue
from paretune.metrics.seeds import Group, NoValueError, groups, joined
from paretune.records.study import StudyRecords, TimedBatch, TimingRecord
from paretune.statistics.quantiles import Quantile, lognormal_quantile, median_interval

SLOW = 0.95  # share of the requests that are answered within what is shown as a slow one's latency
BUSY = 0.1  # share of the time spent waiting for other work, from which on seconds are marked

FloatArray = NDArray[np.float64]


class InferenceEfficiency:
    """Speed, latency and memory of decoding by the number of rows decoded at once, and each beside the base model's.

    Base and policy answer the same prompts within a round, and a figure relative to the base is the median of the
    rounds' ratios: what slows the machine for a while slows both. So these can be compared between runs; seconds and
    tokens per second are those of one machine in those seconds. By the clock of the record: on a processor CPU seconds
    of one thread, which on an idle machine is the time that passes.

    One policy of a method is timed, that of the first seed and budget; rows of other budgets repeat that timing and say
    so. Intervals are thus over rounds, not over seeds. That of a median lies between two of the rounds' values
    (`median_interval`), that of the 95 % quantile is of a log-normal distribution, as the values themselves do not
    reach so far (`lognormal_quantile`). Bytes are counted and repeat: their interval has no width.

    Rows by label, each followed by the number of rows (`, 8 rows`), the most rows first:
        tokens per second: New tokens of all rows together; higher is better.
        ratio to base: The policy's tokens per second over the base model's; 1 means that mixing is free. Its inverse
            is the ratio of their latencies.
        time to first token (ms): From the raw prompts to the first token of all rows; and `time to first token relative
            to base`. Lower is better, as for all that follow but the last.
        latency p50 (ms), latency p95 (ms): From a request's prompt to its text, median and 95 % quantile over requests;
            those of one batch end together.
        peak memory (MB): The most bytes of tensors held at once, parameters included; and `peak memory relative to
            base`.
        mixed preferences relative to one: Tokens per second of a batch whose rows have other preferences, over those
            of a batch of one preference on the same prompts; higher is better. No such row where there is one row.

    Refused where decoding was not timed, where a decoder was not timed in every round, or a time is not above 0. There
    are no mixed preferences where a study has one. Fewer than six rounds give a median no interval.

    Source:
        Kong et al. 2025, inference efficiency.
    """

    name = "inference_efficiency"
    title = "Decoding speed"
    unit = "as labelled"
    higher_is_better = True
    needs = ("timing",)

    def measure(self, study: StudyRecords) -> Sequence[MetricRow]:
        """Return the rows of every task, method and budget."""
        return [row for group in groups(study) for row in self._rows(group, study)]

    def _rows(self, group: Group, study: StudyRecords) -> list[MetricRow]:
        timed = {timing.method: timing for timing in study.timings if timing.task == group.task.name}
        sizes = sorted({batch.rows for timing in timed.values() for batch in timing.batches}, reverse=True)
        own = figures(timed[group.method]) if group.method in timed else {}
        unknown = MetricValue(None, reason="decoding was not timed")
        labels = [label for size in sizes for label in _labels(size).values()] or list(FIGURES)
        note = _of_another_budget(group, study)
        own = {label: replace(value, reason=joined(value.reason, note)) for label, value in own.items()}
        return [group.row(self.name, label, own.get(label, unknown)) for label in labels]


def _of_another_budget(group: Group, study: StudyRecords) -> str:
    """Say with which budget's policy decoding was timed; empty where that is the group's own, or not on record."""
    mine = {cell.cell: cell.budget_completions for cell in study.cells if cell.method == group.method}
    tables = [each for each in study.tables if each.measurement == "timing" and each.task == group.task.name]
    timed = [mine[each.cells[0]] for each in tables if each.cells and each.cells[0] in mine]  # the first of its cells
    other = timed and timed[0] != group.budget_completions
    return f"timed with the policy of {timed[0]:,} completions" if other else ""


def figures(timing: TimingRecord) -> dict[str, MetricValue]:
    """Return all figures of one timing by their labels, the most rows first."""
    return {
        label: _figure(timing, batch, name)
        for batch in reversed(timing.batches)
        for name, label in _labels(batch.rows).items()
    }


def _labels(size: int) -> dict[str, str]:
    """Return the labels of what is known of a number of rows, by the names of the figures."""
    ending = f", {size} row{'s' if size > 1 else ''}"
    return {name: f"{name}{ending}" for name in FIGURES if (size, name) != (1, MIXED)}


def _figure(timing: TimingRecord, batch: TimedBatch, name: str) -> MetricValue:
    try:
        found = FIGURES[name](batch)
    except NoValueError as error:
        return MetricValue(None, reason=str(error))
    reasons = [] if found.low is not None else [f"{len(batch.latency_seconds['base'])} rounds: too few for an interval"]
    if name in SECONDS and (timing.busy or 0) >= BUSY:
        reasons.append(f"the machine was busy: {timing.busy:.0%} of the time went to other work")
    return MetricValue(*found, reason="; ".join(reasons))


def _seconds(rounds: Mapping[str, Sequence[float]], decoder: str) -> FloatArray:
    """Return what a decoder took in every round, `[n]`."""
    found = np.array(rounds.get(decoder, ()), dtype=np.float64)
    if len(found) != len(rounds.get("base", ())) or len(found) == 0:
        raise NoValueError(f"{NAMES[decoder]} was not timed in every round")
    if not (np.isfinite(found) & (found > 0)).all():
        raise NoValueError(f"a round of {NAMES[decoder]} has no time")
    return found


def _speed(batch: TimedBatch) -> Quantile:
    return median_interval(batch.rows * batch.new_tokens / _seconds(batch.latency_seconds, "policy"))


def _ratio(batch: TimedBatch) -> Quantile:
    return median_interval(_seconds(batch.latency_seconds, "base") / _seconds(batch.latency_seconds, "policy"))


def _first(batch: TimedBatch) -> Quantile:
    return median_interval(1000 * _seconds(batch.first_token_seconds, "policy"))


def _first_ratio(batch: TimedBatch) -> Quantile:
    return median_interval(_seconds(batch.first_token_seconds, "policy") / _seconds(batch.first_token_seconds, "base"))


def _middle(batch: TimedBatch) -> Quantile:
    return median_interval(1000 * _seconds(batch.latency_seconds, "policy"))


def _slow(batch: TimedBatch) -> Quantile:
    return lognormal_quantile(1000 * _seconds(batch.latency_seconds, "policy"), SLOW)


def _memory(batch: TimedBatch) -> Quantile:
    return _counted(_bytes(batch, "policy") / 1e6)


def _memory_ratio(batch: TimedBatch) -> Quantile:
    return _counted(_bytes(batch, "policy") / _bytes(batch, "base"))


def _mixed(batch: TimedBatch) -> Quantile:
    if "mixed" not in batch.latency_seconds:
        raise NoValueError("the study has one preference: nothing to mix")
    return median_interval(_seconds(batch.latency_seconds, "policy") / _seconds(batch.latency_seconds, "mixed"))


def _bytes(batch: TimedBatch, decoder: str) -> int:
    if batch.peak_bytes.get(decoder, 0) <= 0:
        raise NoValueError(f"memory of {NAMES[decoder]} was not counted")
    return batch.peak_bytes[decoder]


def _counted(value: float) -> Quantile:
    return Quantile(value, value, value)


NAMES = {"base": "the base model", "policy": "the policy", "mixed": "a batch of mixed preferences"}
MIXED = "mixed preferences relative to one"
FIGURES: Mapping[str, Callable[[TimedBatch], Quantile]] = {
    "tokens per second": _speed,
    "ratio to base": _ratio,
    "time to first token (ms)": _first,
    "time to first token relative to base": _first_ratio,
    "latency p50 (ms)": _middle,
    "latency p95 (ms)": _slow,
    "peak memory (MB)": _memory,
    "peak memory relative to base": _memory_ratio,
    MIXED: _mixed,
}
SECONDS = ("tokens per second", "time to first token (ms)", "latency p50 (ms)", "latency p95 (ms)")
