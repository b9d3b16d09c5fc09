"""Scalability: what one more objective and one more preference cost, measured and graded."""

from __future__ import annotations

from collections.abc import Mapping

from paretune.report.metric_parts import leader_sentence, metric_table, ranked, remarks, row_charts, unmeasured
from paretune.report.section import Section
from paretune.report.view import PartView

METRIC = "scalability"
HOW = (
    "An objective is really added to the finished policies, and a new preference really answered; what is retrained "
    "is counted. The grade, 0 to 4, follows from the figures beside it by the rule in docs/metrics.md."
)


def data(part: PartView) -> Mapping[str, object]:
    """Draw the grades and the loss on old objectives beside the figures."""
    labels = part.labels(METRIC)
    grades = [each for each in labels if "grade" in each]
    losses = [each for each in labels if "old objectives" in each][:1]
    return {
        "sentences": [leader_sentence(ranked(part, part.values(METRIC, each)), _noun(each)) for each in grades],
        "charts": row_charts(
            part,
            METRIC,
            {
                **dict.fromkeys(grades, "grade 0 to 4, better →"),
                **dict.fromkeys(losses, "change on the old objectives, better →"),
            },
        ),
        "tables": [metric_table(part, METRIC, labels, "What one more objective and one more preference cost")],
        "notes": remarks(part, METRIC, labels),
        "how": HOW,
    }


def _noun(label: str) -> str:
    """Write the label of a grade, `new objective: grade`, as a sentence needs it."""
    change, _, grade = label.partition(": ")
    return f"{grade} for a {change}"


SECTION = Section(
    "scalability",
    "What does one more objective or preference cost? (7 scalability)",
    "7 Scalability",
    data,
    unmeasured(METRIC),
)
