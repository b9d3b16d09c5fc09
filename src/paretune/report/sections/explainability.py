"""Explainability: what each expert adds to each objective, where the gate uses it, and whether that can be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from paretune.core.protocols import MetricValue
from paretune.report.charts import Chart, heat
from paretune.report.metric_parts import metric_table, ranked, remarks, row_charts, unmeasured
from paretune.report.section import Section
from paretune.report.view import PartView
from paretune.report.wording import MANY, capital, interval, listing, number

METRIC = "explainability"
MOST_METHODS = 3  # whose attributions are drawn
KINDS = {
    "shapley": "Shapley values of experts", "sensitivity": "Sensitivity of scores to the preference",
    "gate": "Use of experts by the gate", "faithfulness": "Faithfulness",
}  # fmt: skip
HEATS = {  # title of a heat map, and of its axes
    "shapley": ("Shapley values of experts at equal weights", "adds to", "expert"),
    "sensitivity": ("Sensitivity to the preference", "weight raised by .1", "score changed"),
    "gate": ("Use of experts by the gate", "where", "expert"),
}
HOW = (
    "Shapley values share the gain over the base model out to the experts, averaged over all orders in which they "
    "could be added. Faithfulness is the rank correlation of an attribution with what is lost when that expert is "
    "taken out: near 0, do not believe the attribution."
)


def data(part: PartView) -> Mapping[str, object]:
    """Draw what experts add, how scores follow the slider, where a gate uses whom; and how far to believe it."""
    labels = part.labels(METRIC)
    faith = [each for each in labels if each.startswith("faithfulness") and "," not in each]
    kinds = {title: [each for each in labels if each.startswith(start)] for start, title in KINDS.items()}
    kinds["Gradients"] = [each for each in labels if each.startswith("gradient")]
    return {
        "sentences": [_sentence(part, each) for each in faith],
        "charts": [
            *row_charts(
                part, METRIC, dict.fromkeys(faith, "rank correlation with ablation, better \u2192"), ground=0.0
            ),
            *(chart for method in _shown(part) for chart in _heats(part, method, labels)),
        ],
        "tables": [metric_table(part, METRIC, mine, title) for title, mine in kinds.items() if mine],
        "notes": remarks(part, METRIC, labels),
        "how": HOW,
    }


def _sentence(part: PartView, label: str) -> str:
    known = {name: value for name, value in ranked(part, part.values(METRIC, label)).items() if value.value is not None}
    parts = [f"{name} {interval(value)}" for name, value in known.items()]
    return f"{capital(label)}: {listing(parts)}." if 0 < len(parts) <= MANY else ""


def _shown(part: PartView) -> list[str]:
    """Return the best methods that mix experts, the best first."""
    mixing = [
        name
        for name in (each.name for each in part.comparison.ranked)
        if any(value.value is not None for value in _row(part, name, "shapley").values())
    ]
    return part.by_value(mixing)[:MOST_METHODS]


def _row(part: PartView, method: str, start: str) -> dict[str, MetricValue]:
    """Return the values of a method whose labels begin so, without the beginning, at equal weights alone."""
    return {
        label.removeprefix(start).removeprefix(": "): part.values(METRIC, label).get(method, MetricValue(None))
        for label in part.labels(METRIC)
        if label.startswith(f"{start}: ") and ", at " not in label
    }


def _heats(part: PartView, method: str, labels: Sequence[str]) -> list[Chart]:
    """Draw Shapley values, gate weights and sensitivities of a method, those that it has."""
    found = []
    for start, (title, across, up) in HEATS.items():
        cells = {}
        for label, value in _row(part, method, start).items():
            head, _, tail = label.partition(" on " if start == "sensitivity" else ", ")
            if tail and value.value is not None and head != "spread over prompts":
                cells[head, tail] = value
        rows, columns = (list(dict.fromkeys(each[place] for each in cells)) for place in (1, 0))
        if not cells:
            continue
        table = [[cells.get((column, row), MetricValue(None)) for column in columns] for row in rows]
        texts = [[number(each.value, signed=True) for each in row] for row in table]
        drawn = heat([[each.value for each in row] for row in table], rows, columns, texts, across, up)
        name = f"{title} under {method}"
        found.append(Chart(drawn, f"{name}; the table below holds the numbers", name, height=130 + 45 * len(rows)))
    return found


SECTION = Section(
    "explainability", "Why does it answer so? (8 explainability)", "8 Explainability", data, unmeasured(METRIC)
)
