"""What a method cost: completions and seconds to train it, and how fast it decodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paretune.core.protocols import MetricRow, MetricValue
from paretune.report.comparison import Comparison
from paretune.report.measured import measured, rows_of


@dataclass(frozen=True)
class Cost:
    """Cost of one method at one budget; means over finished seeds.

    Attributes:
        method: Its name.
        policies: Experts it trained; None before a cell is finished.
        completions: Sampled for training, selection and search.
        tokens: Of these completions.
        seconds_sum: Of all stages, as if run one after the other.
        seconds_chain: Of the longest chain of stages that need each other.
        peak_memory_bytes: Of the largest stage.
        tokens_per_second: When decoding.
        speed_ratio: The same over the base model's.
    """

    method: str
    policies: int | None
    completions: MetricValue
    tokens: MetricValue
    seconds_sum: MetricValue
    seconds_chain: MetricValue
    peak_memory_bytes: MetricValue
    tokens_per_second: MetricValue
    speed_ratio: MetricValue


def costs(comparison: Comparison, rows: Sequence[MetricRow]) -> list[Cost]:
    """Collect the cost of every method of a comparison from the metrics."""
    mine = rows_of(comparison, rows)

    def trained(method: str, label: str) -> MetricValue:
        return measured(mine, method, "training_efficiency", label)

    return [
        Cost(
            method=method.name,
            policies=method.policies,
            completions=trained(method.name, "sum: completions"),
            tokens=trained(method.name, "sum: tokens"),
            seconds_sum=trained(method.name, "sum: seconds"),
            seconds_chain=trained(method.name, "chain: seconds"),
            peak_memory_bytes=trained(method.name, "peak: memory_bytes"),
            tokens_per_second=measured(mine, method.name, "inference_efficiency", "tokens per second"),
            speed_ratio=measured(mine, method.name, "inference_efficiency", "ratio to base"),
        )
        for method in comparison.methods
    ]
