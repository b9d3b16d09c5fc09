"""Inference efficiency: how fast a method's policy answers, beside the base model in the same minutes."""

from __future__ import annotations

from collections.abc import Mapping

from paretune.report.findings import speed_sentence
from paretune.report.metric_parts import metric_table, ranked, remarks, row_charts, unmeasured
from paretune.report.section import Section
from paretune.report.view import PartView
from paretune.report.wording import count, listing

METRIC = "inference_efficiency"
HOW = (
    "One policy of a method and the base model answer the same prompts in turn, every reply to its limit, while "
    "nothing else runs; a figure is the median of the repeats and its interval is over them. One row is a single "
    "request; many rows are a batch. A mixed batch holds another preference in every row."
)


def data(part: PartView) -> Mapping[str, object]:
    """Show the speed relative to the base model at every batch size."""
    labels = part.labels(METRIC)
    ratios = [each for each in labels if each.startswith("ratio to base")]
    shown = [*ratios, *(each for each in labels if each.startswith("mixed preferences relative"))]
    axes = {
        label: "times the base model's tokens per second, faster →"
        if label in ratios
        else "times the speed for one preference, faster →"
        for label in shown
    }
    return {
        "sentences": [
            speed_sentence(ranked(part, part.values(METRIC, each)), each.rpartition(", ")[2]) for each in ratios[:1]
        ],
        "charts": row_charts(part, METRIC, axes, ground=1.0),
        "tables": [metric_table(part, METRIC, labels, "Decoding [95 % interval over repeats]")],
        "notes": [*_conditions(part), *remarks(part, METRIC, labels)],
        "how": HOW,
    }


def _conditions(part: PartView) -> list[str]:
    timings = [each for each in part.view.study.timings if each.task == part.comparison.task.name]
    said = dict.fromkeys(f"{count(each.threads, 'thread')}, {each.device}" for each in timings)
    return (
        [f"Timed with {listing(list(said))}; the policy of the centre preference and the first seed."] if said else []
    )


SECTION = Section(
    "inference", "How fast does it answer? (4 inference efficiency)", "4 Inference", data, unmeasured(METRIC)
)
