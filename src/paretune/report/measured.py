"""Finding a value among the rows the metrics returned, so that no number is computed twice in two ways."""

from __future__ import annotations

from collections.abc import Sequence

from paretune.core.protocols import MetricRow, MetricValue
from paretune.report.comparison import Comparison


def rows_of(comparison: Comparison, rows: Sequence[MetricRow]) -> list[MetricRow]:
    """Return the rows of one task and budget; of the methods of one class of feedback where there are several."""
    task, budget = comparison.task.name, comparison.budget_completions
    mine = [row for row in rows if row.task == task and row.budget_completions == budget]
    if not comparison.feedback:
        return mine
    names = {method.name for method in (*comparison.methods, *comparison.untrained)}
    return [row for row in mine if row.method in names]


def measured(rows: Sequence[MetricRow], method: str, metric: str, label: str = "") -> MetricValue:
    """Return a method's value of a metric whose label starts so; the empty label must match exactly.

    Args:
        rows: Rows of one comparison.
        method: Name of the method.
        metric: Name of the metric.
        label: How the row's label starts.
    """
    for row in rows:
        fits = row.label.startswith(label) if label else row.label == ""
        if row.method == method and row.metric == metric and fits:
            return row.value
    return MetricValue(None, reason="not measured")


def judged(comparison: Comparison, rows: Sequence[MetricRow]) -> tuple[str, dict[str, MetricValue]]:
    """Return what a comparison ranks its methods by, by name and by method, the base model's row among them.

    On a task judged on J that is the captured share, the gain in J as a share of the possible one, or the achieved J
    where no method has a share; on others achieved utility.
    """
    mine, ranked = rows_of(comparison, rows), [method.name for method in comparison.ranked]
    everyone = [method.name for method in (*comparison.methods, *comparison.untrained)]
    if comparison.task.judged_on == "utility":
        return "achieved utility", achieved(comparison, rows)
    shares = {name: measured(mine, name, "captured_share") for name in everyone}
    if any(shares[each].value is not None for each in ranked):
        return "captured share", shares
    return "achieved J", {name: measured(mine, name, "performance", "J: all") for name in everyone}


def achieved(comparison: Comparison, rows: Sequence[MetricRow]) -> dict[str, MetricValue]:
    """Return the achieved utility over all preferences of each method, and of the base model's row."""
    mine = rows_of(comparison, rows)
    return {
        method.name: measured(mine, method.name, "performance")
        for method in (*comparison.methods, *comparison.untrained)
    }
