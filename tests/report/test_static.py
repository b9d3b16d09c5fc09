"""A chart of the page as matplotlib draws it: the same numbers, limits and marks."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex

from paretune.core.protocols import MetricValue
from paretune.report.charts import Chart, Curve, curves, dots, figure, heat, method_trace
from paretune.report.palette import GREEN, Look
from paretune.report.static import static

LOOKS = {"mine": Look(GREEN, "diamond", "dash")}


def test_a_curve_keeps_its_numbers_its_dash_its_intervals_and_a_logarithmic_axis() -> None:
    values = [MetricValue(0.5, 0.4, 0.8), MetricValue(0.6, 0.5, 0.7)]
    drawn = curves([Curve("mine", [10.0, 100.0], values)], LOOKS, "completions", "utility", xaxis={"type": "log"})
    (axes,) = static(Chart(drawn, "", "A title")).axes
    line = axes.lines[0]
    assert line.get_xdata().tolist() == [10.0, 100.0]
    assert line.get_ydata().tolist() == [0.5, 0.6]
    assert (to_hex(line.get_color()), line.get_linestyle()) == (GREEN.lower(), "--")
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_xscale()) == ("completions", "utility", "log")
    ends = [each[:, 1].tolist() for bars in axes.collections for each in bars.get_segments()]
    assert ends == [pytest.approx([0.4, 0.8]), pytest.approx([0.5, 0.7])]
    assert next(each.get_marker() for each in axes.lines if each.get_marker() not in ("None", "")) == "D"


def test_categories_stand_on_their_lines_and_a_ground_is_drawn() -> None:
    values = {"mine": MetricValue(0.5, 0.4, 0.7), "other": MetricValue(None)}
    drawn = dots(values, {**LOOKS, "other": LOOKS["mine"]}, "better", ground=0.25)
    (axes,) = static(Chart(drawn, "")).axes
    assert [each.get_text() for each in axes.get_yticklabels()] == ["other", "mine"]
    assert axes.get_ylim() == (-0.7, 1.7)
    points = [line for line in axes.lines if line.get_marker() == "D"]
    assert [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in points] == [([0.5], [1.0])]
    assert any(np.allclose(line.get_xdata(), 0.25) for line in axes.lines)


def test_hollow_marks_stay_hollow_and_limits_are_those_of_the_page() -> None:
    marks = {"symbol": ["diamond", "diamond-open"]}
    trace = method_trace("mine", LOOKS["mine"], [0.1, 0.2], [0.3, 0.4], marker=marks)
    drawn = figure([trace], "a", "b", xaxis={"range": [-1, 2]}, yaxis={"rangemode": "tozero"})
    (axes,) = static(Chart(drawn, "")).axes
    fills = {float(line.get_xdata()[0]): to_hex(line.get_markerfacecolor()) for line in axes.lines}
    assert fills == {0.1: GREEN.lower(), 0.2: "#ffffff"}
    assert axes.get_xlim() == (-1, 2)
    assert axes.get_ylim()[0] == 0


def test_a_heat_map_has_its_numbers_and_the_end_of_its_scale() -> None:
    drawn = heat([[0.2, None], [-0.5, 0.1]], ["r", "s"], ["c", "d"], [["+.2", "–"], ["−.5", "+.1"]])
    (axes,) = static(Chart(drawn, "")).axes
    (image,) = axes.images
    assert np.ma.filled(image.get_array(), np.nan) == pytest.approx(np.array([[0.2, np.nan], [-0.5, 0.1]]), nan_ok=True)
    assert image.get_clim() == (-0.5, 0.5)
    assert sorted(each.get_text() for each in axes.texts) == sorted(["+.2", "–", "−.5", "+.1"])
