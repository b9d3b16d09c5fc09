"""Adaptability: what training on for a new preference gains, from each method's own start."""

from __future__ import annotations

import re
from collections.abc import Mapping

from paretune.core.protocols import MetricValue
from paretune.report.charts import Chart, Curve, curves
from paretune.report.metric_parts import leader_sentence, metric_table, ranked, remarks, unmeasured
from paretune.report.palette import GREY, Look
from paretune.report.section import Section
from paretune.report.view import PartView

METRIC, SCRATCH = "adaptability", "from scratch"
AFTER = re.compile(r"^(?P<noun>utility|J) after (?P<made>[\d,]+) completions(?P<scratch> from scratch)?$")
HOW = (
    "The policy that answers a preference nobody trained for is trained on for it, and measured on the test prompts "
    "after each number of completions. From scratch: one fresh expert on the base model, with the same completions."
)


def data(part: PartView) -> Mapping[str, object]:
    """Draw learning curves."""
    labels = part.labels(METRIC)
    noun = part.comparison.task.judged_on
    area = next((each for each in labels if each.startswith("area under the curve")), "")
    return {
        "sentences": [leader_sentence(ranked(part, part.values(METRIC, area)), "area under its learning curve")],
        "charts": _curves(part, noun) or _curves(part, "utility"),
        "tables": [metric_table(part, METRIC, labels, "Adaptability [95 % interval over seeds]")],
        "notes": remarks(part, METRIC, labels),
        "how": HOW,
    }


def _curves(part: PartView, noun: str) -> list[Chart]:
    found: dict[tuple[str, bool], list[tuple[float, MetricValue]]] = {}
    for label in part.labels(METRIC):
        match = AFTER.match(label)
        if match and match["noun"] == noun:
            for name, value in part.values(METRIC, label).items():
                if value.value is not None:
                    found.setdefault((name, bool(match["scratch"])), []).append(
                        (float(match["made"].replace(",", "")), value)
                    )
    if not found:
        return []
    scratch = next((points for (_, fresh), points in found.items() if fresh), [])
    curve_of = {name: points for (name, fresh), points in found.items() if not fresh} | {SCRATCH: scratch}
    lines = [Curve(name, [x for x, _ in points], [each for _, each in points]) for name, points in curve_of.items()]
    drawn = curves(
        [each for each in lines if each.x],
        {**part.view.looks, SCRATCH: Look(GREY, "star", "dash")},
        "completions trained on for the new preference",
        f"{noun}, better →",
    )
    return [
        Chart(
            drawn,
            f"{noun} on unseen preferences against completions of adaptation, one line a method",
            "Adapting to a new preference",
        )
    ]


SECTION = Section(
    "adaptability",
    "How fast does it learn a new preference? (6 adaptability)",
    "6 Adaptability",
    data,
    unmeasured(METRIC),
)
