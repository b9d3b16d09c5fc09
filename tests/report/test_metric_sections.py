"""Sections of metrics, on rows made by hand: what they say, draw and leave out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

import builders
from paretune.core.protocols import MetricRow, MetricValue
from paretune.report.metric_parts import leader_sentence
from paretune.report.section import Section
from paretune.report.sections import adaptability, explainability, performance, scalability, stability, training
from paretune.report.view import PartView, View

NAMES = ("linear", "rewarded_soups", "mod")
NONE = MetricValue(None, reason="it mixes log-probabilities, and there is no one policy to train on")


def of(*seeds: float) -> MetricValue:
    """A mean over seeds, with an interval that needs no knowledge of Student."""
    mean = sum(seeds) / len(seeds)
    return MetricValue(mean, min(seeds), max(seeds), dict(enumerate(seeds)))


def part_of(metric: str, rows: Mapping[str, Sequence[MetricValue]]) -> PartView:
    """A part whose metric has these rows: label -> a value for each of `NAMES`."""
    study = builders.synthetic_study(methods=NAMES[:2])
    study = replace(study, cells=(*study.cells, *(replace(each, method="mod") for each in study.cells[:3])))
    made = [
        MetricRow("counselling", name, 6_000, metric, value, label)
        for label, values in rows.items()
        for name, value in zip(NAMES, values, strict=True)
    ]
    return View(study, made).parts[0]


def shown(section: Section, part: PartView) -> dict[str, Any]:
    assert section.needs(part) == ""
    return dict(section.data(part))


LEARNT = {
    "utility after 0 completions": [of(0.50, 0.52), of(0.60, 0.62), NONE],
    "utility after 1,024 completions": [of(0.70, 0.72), of(0.64, 0.66), NONE],
    "area under the curve, utility": [of(0.60, 0.62, 0.61), of(0.50, 0.52, 0.51), NONE],
    "utility after 0 completions from scratch": [of(0.30, 0.32)] * 3,
    "utility after 1,024 completions from scratch": [of(0.40, 0.42)] * 3,
}


def test_adaptability_draws_each_methods_curve_and_one_from_scratch() -> None:
    found = shown(adaptability.SECTION, part_of("adaptability", LEARNT))
    (chart,) = found["charts"]
    lines = {trace["name"]: (trace["x"], trace["y"]) for trace in chart.figure["data"]}
    assert lines["linear"] == ([0.0, 1024.0], pytest.approx([0.51, 0.71]))
    assert lines["rewarded_soups"] == ([0.0, 1024.0], pytest.approx([0.61, 0.65]))
    assert lines["from scratch"] == ([0.0, 1024.0], pytest.approx([0.31, 0.41]))
    assert len(lines) == 3  # mod cannot be adapted
    assert found["sentences"] == [
        "linear has the highest area under its learning curve, 0.610 [0.600, 0.620]; every other method can be told "
        "apart from it. No figure of mod."
    ]
    (table,) = found["tables"]
    assert table.rows[2] == ("mod", "–", "–", "–", "0.310 [0.300, 0.320]", "0.410 [0.400, 0.420]")
    assert any("mixes log-probabilities" in note and "(mod)" in note for note in found["notes"])


def test_a_section_of_what_was_not_measured_says_why() -> None:
    part = part_of("adaptability", {"utility after 0 completions": [MetricValue(None, reason="not adapted")] * 3})
    assert adaptability.SECTION.needs(part) == "No figures: not adapted."


def test_scalability_has_a_chart_a_grade_and_names_it_as_a_noun() -> None:
    grades = {
        "new objective: grade": [of(4.0, 4.0, 4.0), of(1.0, 1.0, 1.0), of(2.0, 2.0, 2.0)],
        "new objective: change on the old objectives, utility": [of(0.0, 0.1), of(-0.2, -0.1), NONE],
        "new preference: grade": [of(3.0, 3.0), NONE, NONE],
    }
    found = shown(scalability.SECTION, part_of("scalability", grades))
    assert found["sentences"][0].startswith("linear has the highest grade for a new objective, 4.00")
    assert found["sentences"][1].startswith("linear is the only method with a figure of grade for a new preference")
    titles = [chart.title for chart in found["charts"]]
    assert titles[-1] == "New objective: change on the old objectives, utility"
    marks = [trace for trace in found["charts"][-1].figure["data"] if "error_x" in trace]
    assert {trace["name"]: trace["x"] for trace in marks} == {
        "linear": [pytest.approx(0.05)],
        "rewarded_soups": [pytest.approx(-0.15)],
    }


def test_explainability_draws_what_experts_add_and_how_far_to_believe_it() -> None:
    added = {
        "shapley: expert 0, reflection": [NONE, of(0.3, 0.4), NONE],
        "shapley: expert 0, empathy": [NONE, of(-0.1, 0.0), NONE],
        "shapley: expert 1, reflection": [NONE, of(0.1, 0.1), NONE],
        "shapley: expert 1, empathy": [NONE, of(0.5, 0.6), NONE],
        "faithfulness: shapley": [NONE, of(0.8, 1.0), NONE],
        "faithfulness: shapley, empathy": [NONE, of(0.1, 0.2), NONE],
    }
    found = shown(explainability.SECTION, part_of("explainability", added))
    assert found["sentences"] == ["Faithfulness: shapley: rewarded_soups 0.900 [0.800, 1.00]."]
    (heat,) = (chart for chart in found["charts"] if chart.title.startswith("Shapley"))
    trace = heat.figure["data"][0]
    assert trace["x"] == ["expert 0", "expert 1"]
    assert trace["y"] == ["reflection", "empathy"]
    assert trace["z"] == [[pytest.approx(0.35), pytest.approx(0.1)], [pytest.approx(-0.05), pytest.approx(0.55)]]
    assert heat.title.endswith("under rewarded_soups")


def test_who_has_no_figure_is_not_said_to_be_told_apart() -> None:
    told = leader_sentence({"a": of(0.7, 0.71), "b": NONE, "c": NONE}, "area")
    assert told == "a is the only method with a figure of area: 0.705 [0.700, 0.710]. No figure of b and c."
    known = {"a": of(0.70, 0.71, 0.72), "b": of(0.50, 0.51, 0.52), "c": NONE}
    assert leader_sentence(known, "area").endswith("every other method can be told apart from it. No figure of c.")
    assert leader_sentence({"a": MetricValue(0.7), "b": NONE}, "speed") == ""  # no seeds, so nothing leads


def test_the_worst_seed_is_that_of_the_metric_and_not_a_mean() -> None:
    """One method has seeds of .9, .9 and .2, the other of .5: its mean is higher and its worst seed lower."""
    worst = {
        "quality: worst seed": [
            MetricValue(0.2, per_seed={0: 0.9, 1: 0.9, 2: 0.2}), MetricValue(0.5, per_seed={0: 0.5, 1: 0.51, 2: 0.5}),
            NONE,
        ],
        "quality: sd (lower is better)": [MetricValue(0.4, 0.2, 2.5), MetricValue(0.01, 0.005, 0.06), NONE],
    }  # fmt: skip
    first, second = shown(stability.SECTION, part_of("stability", worst))["sentences"]
    assert first.startswith("Of the worst seeds that of rewarded_soups is highest, 0.500, and that of linear lowest, ")
    assert second.endswith("[0.005, 0.060] (rewarded_soups) to 0.400 [0.200, 2.50] (linear).")
    wide = {"quality: sd (lower is better)": [MetricValue(0.4, 0.2, 2.5), MetricValue(0.3, 0.1, 2.0), NONE]}
    _, second = shown(stability.SECTION, part_of("stability", wide))["sentences"]
    assert "nothing shows that seeds of one lie closer" in second


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([of(0.1, 0.11), of(0.3, 0.31), of(-0.1, 0.2)], "no method is shown to lose fluency for any user"),
        ([of(-0.5, -0.4, -0.45), of(-0.1, -0.05, -0.02), of(-0.1, 0.2, 0.1)], "linear loses most fluency for one user"),
    ],
)  # fmt: skip
def test_the_audit_names_who_loses_beyond_chance(changes: list[MetricValue], said: str) -> None:
    part = part_of("performance", {"audit change, worst: fluency": changes})
    sentence = shown(performance.SECTION, part)["sentences"][-1]
    assert said in sentence
    assert "mod" not in sentence  # its interval holds 0
    assert ("rewarded_soups loses less" in sentence) is ("loses most" in sentence)


def test_time_to_train_has_its_interval_and_names_one_method_once() -> None:
    spent = {
        "sum: completions": [of(4_000.0, 4_000.0), NONE, NONE],
        "sum: seconds": [of(10.0, 20.0), NONE, NONE],
    }
    (said,) = shown(training.SECTION, part_of("training_efficiency", spent))["sentences"]
    assert said.endswith("Time to train, a seed: linear 15 s [10 s, 20 s].")
