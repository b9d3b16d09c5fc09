"""The metrics as lines of the page's table, each with its place on a scale shared within a metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from paretune.core.protocols import MetricRow, MetricValue
from paretune.metrics import METRICS, load_metric
from paretune.report.comparison import Comparison
from paretune.report.measured import rows_of
from paretune.report.wording import interval

NAIVE = "naive: biased upward by evaluation noise; on average the truth lies between this and the cross-fitted figure"
DETAILS = (
    "preference: ", "kl: ", "chain: completions", "chain: tokens", "chain: flops", "evaluation sd: ",
    "J at KL ", "utility at KL ",
)  # fmt: skip
EXACT = ("captured_share", "true_front", "kl_matched")  # say nothing of tasks they do not apply to, unless asked
MARGIN = 4.0  # of 100 units: keeps marks inside the drawing


@dataclass(frozen=True)
class MetricLine:
    """One line of the table.

    Attributes:
        title: The metric's title.
        part: Which of its parts.
        unit: Unit and direction.
        method: The method.
        text: Value and interval.
        sort: Value to sort by; empty when missing.
        seeds: Number of seeds behind it.
        remark: Reason for what is missing, and warnings.
        dot: Place of the value, 0 to 100; None when missing.
        low: Place of the interval's lower end.
        high: Place of its upper end.
        detail: Whether it is one of many rows of a kind, shown on request.
        first: Whether its unit has not been named in a line before it.
    """

    title: str
    part: str
    unit: str
    method: str
    text: str
    sort: str
    seeds: int
    remark: str
    dot: float | None
    low: float | None
    high: float | None
    detail: bool
    first: bool


def metric_lines(comparison: Comparison, rows: Sequence[MetricRow]) -> list[MetricLine]:
    """Return the lines of a comparison, in the order the metrics gave them, methods of one part together."""
    groups: dict[tuple[str, str], list[MetricRow]] = {}
    for row in rows_of(comparison, rows):
        groups.setdefault((row.metric, row.label), []).append(row)
    lines, named = [], set[tuple[str, str]]()
    for group in groups.values():
        unit = _title_and_unit(group[0].metric, group[0].label)
        lines += _lines(group, unit not in named)
        named.add(unit)
    return lines


def _lines(rows: Sequence[MetricRow], new_unit: bool) -> list[MetricLine]:
    name, label = rows[0].metric, rows[0].label
    title, unit = _title_and_unit(name, label)
    place = _scale([row.value for row in rows])
    warning = NAIVE if "naive, " in label else ""
    inapplicable = name in EXACT and all(row.value.value is None for row in rows)
    return [
        MetricLine(
            title=title,
            part=label,
            unit=unit,
            method=row.method,
            text=interval(row.value),
            sort="" if row.value.value is None else repr(row.value.value),
            seeds=len(row.value.per_seed),
            remark="; ".join(each for each in (row.value.reason, warning if index == 0 else "") if each),
            dot=place(row.value.value),
            low=place(row.value.low),
            high=place(row.value.high),
            detail=inapplicable or (label.startswith(DETAILS) and label != "kl: all"),
            first=new_unit and index == 0,
        )
        for index, row in enumerate(rows)
    ]


def _title_and_unit(name: str, label: str) -> tuple[str, str]:
    if name not in METRICS:  # a user's own: its rows carry no title
        return name.replace("_", " "), ""
    metric = load_metric(name)
    if label.startswith("kl: "):
        return metric.title, "nats, distance from the base model, the price of the utility"
    if "lower is better" in label:
        return metric.title, ""
    direction = "higher is better" if metric.higher_is_better else "lower is better"
    unit = "" if metric.unit == "as labelled" else f"{metric.unit}, "
    return metric.title, unit + direction


def _scale(values: Sequence[MetricValue]) -> Callable[[float | None], float | None]:
    """Return a map from values to places; with equal values, all sit in the middle."""
    ends = [each for value in values for each in (value.value, value.low, value.high) if each is not None]
    lowest, highest = min(ends, default=0.0), max(ends, default=0.0)

    def place(value: float | None) -> float | None:
        if value is None:
            return None
        share = 0.5 if highest == lowest else (value - lowest) / (highest - lowest)
        return round(MARGIN + share * (100 - 2 * MARGIN), 2)

    return place
