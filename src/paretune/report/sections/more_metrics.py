"""Metrics of a user's own."""

from __future__ import annotations

from collections.abc import Mapping

from paretune.metrics import METRICS
from paretune.report.metric_parts import metric_table, remarks, row_charts
from paretune.report.section import Section
from paretune.report.view import PartView, View

SHOWN = "own_utility"  # in the section of performance


def data(view: View) -> Mapping[str, object]:
    """Show every row of theirs, task by task."""
    found = [(part, metric) for part in view.parts for metric in own(part)]
    return {
        "sentences": [],
        "charts": [
            chart
            for part, metric in found
            for chart in row_charts(part, metric, {part.labels(metric)[0]: metric.replace("_", " ")})
        ],
        "tables": [
            metric_table(part, metric, part.labels(metric), f"{metric.replace('_', ' ')}: {part.comparison.title}")
            for part, metric in found
        ],
        "notes": [each for part, metric in found for each in remarks(part, metric, part.labels(metric))],
        "how": "",
    }


def needs(view: View) -> str:
    """Return why there is nothing."""
    return "" if any(own(part) for part in view.parts) else "no metric of a user's own"


def own(part: PartView) -> list[str]:
    """Name the metrics that are not built in."""
    return [each for each in dict.fromkeys(row.metric for row in part.rows) if each not in METRICS and each != SHOWN]


SECTION = Section("own", "Metrics of your own", "Your metrics", data, needs, of="study")
