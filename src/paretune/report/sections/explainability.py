"""Explainability: what each expert adds to each objective, where the gate uses it, and whether that can be believed."""

from __future__ import annotations

from collections.abc import Mapping

from paretune.report.metric_parts import leader_sentence, metric_table, ranked, remarks, row_charts, unmeasured
from paretune.report.section import Section
from paretune.report.view import PartView

METRIC = "explainability"
HOW = (
    "Shapley values share the gain over the base model out to the experts, averaged over all orders in which they "
    "could be added. Faithfulness is the rank correlation of an attribution with what is lost when that expert is "
    "taken out: near 0, do not believe the attribution."
)


def data(part: PartView) -> Mapping[str, object]:
    """Draw how far attributions can be believed; all values stand in the tables."""
    labels = part.labels(METRIC)
    faith = [each for each in labels if each.startswith("faithfulness")]
    kinds = {
        "Shapley values of experts": [each for each in labels if each.startswith("shapley")],
        "Sensitivity of scores to the preference": [each for each in labels if each.startswith("sensitivity")],
        "Use of experts by the gate": [each for each in labels if each.startswith("gate")],
        "Faithfulness and the rest": [
            each for each in labels if not each.startswith(("shapley", "sensitivity", "gate"))
        ],
    }
    return {
        "sentences": [leader_sentence(ranked(part, part.values(METRIC, each)), each) for each in faith[:1]],
        "charts": row_charts(part, METRIC, dict.fromkeys(faith, "rank correlation with ablation, better →")),
        "tables": [metric_table(part, METRIC, mine, title) for title, mine in kinds.items() if mine],
        "notes": remarks(part, METRIC, labels),
        "how": HOW,
    }


SECTION = Section(
    "explainability", "Why does it answer so? (8 explainability)", "8 Explainability", data, unmeasured(METRIC)
)
