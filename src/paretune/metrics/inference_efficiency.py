"""Inference efficiency: how fast a method's policy writes, beside its base model in the same minutes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from paretune.core.protocols import MetricRow, MetricValue
from paretune.metrics.seeds import Group, groups
from paretune.records.study import StudyRecords, TimingRecord


class InferenceEfficiency:
    """Tokens per second while nothing else runs, and their ratio to the base model's.

    The ratio is the median of the ratios of single repeats: policy and base take turns, so what slows the machine for a
    while slows both. One policy of a method is timed, so there is no interval over seeds.

    Rows by label: `tokens per second` and `ratio to base`, followed by the number of rows decoded at once.

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
        timed = [timing for timing in study.timings if timing.task == group.task.name]
        rows = []
        batches: list[int | None] = [*sorted({timing.rows for timing in timed})]
        for batch in batches or [None]:
            timing = next((each for each in timed if each.method == group.method and each.rows == batch), None)
            suffix = "" if batch is None else f", {batch} rows"
            rows.append(group.row(self.name, f"tokens per second{suffix}", _speed(timing)))
            rows.append(group.row(self.name, f"ratio to base{suffix}", _ratio(timing)))
        return rows


def _speed(timing: TimingRecord | None) -> MetricValue:
    if timing is None:
        return MetricValue(None, reason="decoding was not timed")
    return _median(np.array(timing.tokens_per_second, dtype=np.float64))


def _ratio(timing: TimingRecord | None) -> MetricValue:
    if timing is None:
        return MetricValue(None, reason="decoding was not timed")
    speeds, base = np.array(timing.tokens_per_second), np.array(timing.base_tokens_per_second)
    if speeds.shape != base.shape or not (base > 0).all():
        return MetricValue(None, reason="the base model was not timed in every repeat")
    return _median(speeds / base)


def _median(repeats: NDArray[np.float64]) -> MetricValue:
    if len(repeats) == 0 or not (np.isfinite(repeats) & (repeats > 0)).all():
        return MetricValue(None, reason="a repeat has no speed")
    return MetricValue(float(np.median(repeats)), reason=f"median of {len(repeats)} repeats of one policy: no interval")
