"""Stability: every seed of every method, the worst of them, and how the ranking changes."""

from __future__ import annotations

from collections.abc import Mapping

from paretune.report.metric_parts import dot_chart, leader_sentence, metric_table, ranked, remarks, unmeasured
from paretune.report.section import Section
from paretune.report.view import PartView
from paretune.report.wording import number

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
            leader_sentence(ranked(part, part.values(METRIC, "quality: worst seed")), "worst seed"),
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


def _spread(part: PartView, label: str) -> str:
    known = {name: each for name, each in ranked(part, part.values(METRIC, label)).items() if each.value is not None}
    if len(known) < 2:
        return ""
    least, most = (pick(known, key=lambda name: known[name].value or 0.0) for pick in (min, max))
    return (
        f"Seeds of {least} lie closest together (standard deviation {number(known[least].value)}), those of {most} "
        f"furthest apart ({number(known[most].value)})."
    )


SECTION = Section("stability", "Does it depend on luck? (5 stability)", "5 Stability", data, unmeasured(METRIC))
