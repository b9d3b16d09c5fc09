"""What a method cost: completions and seconds to train it, and how fast it decodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paretune.core.protocols import MetricRow, MetricValue
from paretune.report.comparison import Comparison
from paretune.report.measured import measured, rows_of
from paretune.report.wording import seconds


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
        timed: With how many prompts answered at once, `16 rows`; empty where it was not timed.
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
    timed: str


RATIO = "ratio to base, "  # begins the labels of speeds beside the base model; the most rows come first
BUSY = "machine was busy"  # how the reason of seconds begins that were measured beside other work


def spent_seconds(value: MetricValue) -> str:
    """Write a duration with its interval over seeds, where they differ, and whether the machine was busy."""
    ends = ""
    if value.low is not None and value.high is not None and value.low < value.high:
        ends = f" [{seconds(max(value.low, 0.0))}, {seconds(value.high)}]"
    return f"{seconds(value.value)}{ends}{' (the machine was busy)' if BUSY in value.reason else ''}"


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
            speed_ratio=measured(mine, method.name, "inference_efficiency", RATIO),
            timed=next((row.label.removeprefix(RATIO) for row in mine if row.label.startswith(RATIO)), ""),
        )
        for method in comparison.methods
    ]
