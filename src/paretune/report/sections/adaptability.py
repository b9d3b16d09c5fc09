"""Adaptability: what training on for a new preference gains, from each method's own start."""

from __future__ import annotations

import re
from collections.abc import Mapping

from paretune.core.protocols import MetricValue
from paretune.report.charts import Chart, Curve, curves
from paretune.report.metric_parts import leader_sentence, looks, metric_table, ranked, remarks, unmeasured
from paretune.report.section import Section
from paretune.report.view import PartView

METRIC = "adaptability"
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
    scratch = next((points for (_, fresh), points in found.items() if fresh), None)
    lines = [
        Curve(name, [x for x, _ in points], [value for _, value in points])
        for (name, fresh), points in found.items()
        if not fresh
    ]
    if scratch and lines:
        lines.append(
            Curve(lines[0].method, [x for x, _ in scratch], [value for _, value in scratch], "dash", ": from scratch")
        )
    drawn = curves(lines, looks(part), "completions trained on for the new preference", f"{noun}, better →")
    if scratch and lines:
        drawn["data"][-1] |= {
            "name": "from scratch",
            "meta": {},
            "line": {"color": "#777777", "width": 2, "dash": "dash"},
        }
        drawn["data"][-1]["marker"] = {**drawn["data"][-1]["marker"], "color": "#777777"}
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
