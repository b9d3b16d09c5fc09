"""Pareto-optimality: what the set of a method's policies is worth, and whether weights steer it."""

from __future__ import annotations

from collections.abc import Mapping

from paretune.report.metric_parts import leader_sentence, metric_table, ranked, remarks, row_charts, unmeasured
from paretune.report.section import Section
from paretune.report.view import PartView

METRIC, EXACT = "pareto_optimality", "true_front"
HOW = (
    "Hypervolume is the volume between the task's frozen reference point and the scores, from equally many candidates "
    "of every method. Naive: evaluation noise pushes it up. Cross-fitted: half of the prompts choose, the other half "
    "values; it leans low, and the truth lies between. Controllability is the rank correlation of an objective's "
    "weight with its score: 1 where more weight always gives more."
)


def data(part: PartView) -> Mapping[str, object]:
    """Show the cross-fitted hypervolume first; all else stands in the table."""
    labels = [each for each in part.labels(METRIC) if not each.startswith("evaluation sd: ")]
    main = next((each for each in labels if each.startswith("cross-fitted")), "")
    steering = [each for each in labels if each == "controllability: mean"]
    exact = [each for each in part.labels(EXACT) if each.startswith("relative hypervolume")]
    values = ranked(part, part.values(METRIC, main))
    charts = row_charts(
        part,
        METRIC,
        {
            main: "hypervolume, cross-fitted, better →",
            **dict.fromkeys(steering, "rank correlation of weight and score, better →"),
        },
    )
    charts += row_charts(part, EXACT, dict.fromkeys(exact, "share of the exact front's volume, better →"))
    tables = [metric_table(part, METRIC, labels, "Pareto-optimality [95 % interval over seeds]")]
    tables += [metric_table(part, EXACT, part.labels(EXACT), "Against the exact front")] if exact else []
    return {
        "sentences": [
            leader_sentence(values, "cross-fitted hypervolume"),
            *(leader_sentence(ranked(part, part.values(METRIC, each)), "controllability") for each in steering),
        ],
        "charts": charts,
        "tables": tables,
        "notes": remarks(part, METRIC, labels),
        "how": HOW,
    }


SECTION = Section(
    "pareto", "What is the set of policies worth? (2 Pareto-optimality)", "2 Pareto", data, unmeasured(METRIC)
)
