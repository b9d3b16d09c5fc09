"""Stability: every seed of every method, the worst of them, and how the ranking changes."""

from __future__ import annotations

import math
from collections.abc import Mapping

from paretune.core.protocols import MetricValue
from paretune.report.metric_parts import dot_chart, metric_table, ranked, remarks, unmeasured
from paretune.report.section import Section
from paretune.report.view import PartView
from paretune.report.wording import interval, number

METRIC = "stability"
HOW = (
    "A seed names the training noise, and on generated tasks the task itself. The coefficient of variation is the "
    "standard deviation over seeds divided by their mean. No seed is dropped: one that failed is named above."
)


def data(part: PartView) -> Mapping[str, object]:
    """Draw every seed, on the axis of the performance section."""
    noun, values = part.judged
    mine = {each.name: values[each.name] for each in part.comparison.methods if each.name in values}
    labels = part.labels(METRIC)
    spread = next((each for each in labels if each.startswith("quality: sd")), "")
    return {
        "sentences": [
            _worst(ranked(part, part.values(METRIC, "quality: worst seed"))),
            _spread(part, spread),
        ],
        "charts": dot_chart(
            part,
            mine,
            f"Every seed: {noun}",
            f"{noun}, better →",
            note="Ticks are seeds; the mark is their mean with its interval.",
        ),
        "tables": [metric_table(part, METRIC, labels, "Stability over seeds")],
        "notes": remarks(part, METRIC, labels),
        "how": HOW,
    }


def _worst(values: Mapping[str, MetricValue]) -> str:
    """Say whose worst seed is best and whose is worst; a single seed has no interval."""
    known = {name: each.value for name, each in values.items() if each.value is not None}
    if len(known) < 2:
        return ""
    best, worst = (pick(known, key=lambda name: known[name]) for pick in (max, min))
    return (
        f"Of the worst seeds that of {best} is highest, {number(known[best])}, and that of {worst} lowest, "
        f"{number(known[worst])}; these are single seeds, without an interval."
    )


def _spread(part: PartView, label: str) -> str:
    """Say how far seeds lie apart under the steadiest method and the least steady, and whether that can be told."""
    known = {name: each for name, each in ranked(part, part.values(METRIC, label)).items() if each.value is not None}
    if len(known) < 2:
        return ""
    least, most = (pick(known, key=lambda name: known[name].value or 0.0) for pick in (min, max))
    apart = (known[least].high or math.inf) < (known[most].low or -math.inf)
    return (
        f"The standard deviation over seeds goes from {interval(known[least])} ({least}) to {interval(known[most])} "
        f"({most}){'' if apart else ': nothing shows that seeds of one lie closer together than those of another'}."
    )


SECTION = Section("stability", "Does it depend on luck? (5 stability)", "5 Stability", data, unmeasured(METRIC))
