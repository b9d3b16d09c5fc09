from __future__ import annotations

import json
from functools import cache
from typing import Any

import plotly.graph_objects as go
import pytest

import builders
from paretune.core.protocols import MetricValue
from paretune.metrics import measure_all
from paretune.report.charts import Chart, Charts, Curve, curves, dots, heat, plain
from paretune.report.palette import Look
from paretune.report.section import Section, blocks, named_charts
from paretune.report.sections import SECTIONS
from paretune.report.view import PartView, View

LOOKS = {"linear": Look("#000000", "circle"), "mod": Look("#111111", "square")}
VALUES = {"linear": MetricValue(0.5, 0.4, 0.7, {0: 0.45, 1: 0.55}), "mod": MetricValue(None, reason="crashed")}


def unpacked(packed: dict[str, Any], value: Any) -> Any:
    if isinstance(value, dict):
        if "$" in value:
            return unpacked(packed, packed["lists"][value["$"]])
        return {key: unpacked(packed, each) for key, each in value.items()}
    return [unpacked(packed, each) for each in value] if isinstance(value, list) else value


@cache
def all_charts() -> list[Chart]:
    study = builders.synthetic_study(methods=(*builders.METHODS, builders.CEILING), exact=True)
    view = View(study, measure_all(study))
    return [chart for _, chart in named_charts(blocks(view, SECTIONS), 1)]


def test_plotly_knows_every_property_of_every_chart() -> None:
    charts = all_charts()
    assert len(charts) > 10
    for chart in charts:
        go.Figure(chart.figure)  # raises at a name or value it does not know


def test_every_chart_says_what_it_shows_and_names_its_axes() -> None:
    for chart in all_charts():
        assert len(chart.alt) > 20
        layout = chart.figure["layout"]
        assert {"title"} <= layout["xaxis"].keys() & layout["yaxis"].keys()


def test_what_is_packed_unpacks_to_the_same_and_shared_lists_are_kept_once() -> None:
    long, charts = [0.1 * each for each in range(20)], Charts()
    figure = {"data": [{"x": long, "y": long, "z": [long, [1, 2]]}], "layout": {"a": [1, 2, 3]}}
    assert charts.add(Chart(figure, "")) == 0
    charts.add(Chart(figure, ""))
    packed: Any = charts.packed()
    assert len(packed["lists"]) == 1
    first, second = (unpacked(packed, each) for each in packed["figures"])
    assert first == second
    assert first["data"][0]["z"][1] == [1, 2]
    assert first["data"][0]["x"] == pytest.approx(long, rel=1e-3)  # four digits are kept
    json.dumps(packed, allow_nan=False)


def test_a_line_of_dots_has_its_interval_and_every_seed_and_stays_empty_without_a_value() -> None:
    drawn = dots(VALUES, LOOKS, "better →", ground=0.0)
    seeds, mean = drawn["data"]
    assert seeds["x"] == [0.45, 0.55]
    assert (mean["x"], mean["y"]) == ([0.5], ["linear"])
    assert mean["error_x"]["array"] == pytest.approx([0.2])  # .7 - .5
    assert mean["error_x"]["arrayminus"] == pytest.approx([0.1])  # .5 - .4
    assert drawn["layout"]["yaxis"]["categoryarray"] == ["mod", "linear"]
    assert drawn["layout"]["shapes"][0]["x0"] == 0.0


def test_a_heat_map_is_centred_at_zero_and_has_a_scale_without_numbers() -> None:
    trace = heat([[0.2, None], [-0.5, 0.1]], ["a", "b"], ["c", "d"], [["", ""], ["", ""]])["data"][0]
    assert (trace["zmin"], trace["zmax"]) == (-0.5, 0.5)
    assert heat([[None]], ["a"], ["b"], [[""]])["data"][0]["zmax"] == 1.0


def test_a_name_cannot_become_markup() -> None:
    hostile = "<b>x</b><img src=y>"
    (trace,) = curves([Curve(hostile, [1.0], [MetricValue(0.5)])], {hostile: Look("#000", "circle")}, "x", "y")["data"]
    assert "<img" not in json.dumps(trace["name"]) + json.dumps(trace["hovertemplate"])
    assert trace["meta"]["method"] == hostile  # what the legend names
    assert plain("a & b") == "a &amp; b"


def test_one_more_section_is_one_entry() -> None:
    def data(part: PartView) -> dict[str, object]:
        return {"sentences": [part.comparison.title], "charts": [], "tables": [], "notes": [], "how": ""}

    own = Section("mine", "What is mine?", "Mine", data)
    absent = Section("gone", "What is gone?", "Gone", data, needs=lambda part: "It is gone.")
    study = builders.synthetic_study(seeds=(0,))
    found = blocks(View(study, []), [own, absent])
    assert [block.missing for block in found] == ["", "It is gone."]
    assert found[0].data["sentences"] == ["counselling, 6,000 completions"]
    assert found[1].data == {}
