"""Charts of the page: plotly figures as plain data, one layout, and how they are packed into it.

Figures hold no colour of the page itself, such as its text's: the page sets these when it draws, light or dark.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from paretune.core.protocols import MetricValue
from paretune.report.palette import Look
from paretune.report.wording import interval

Figure = dict[str, Any]
Trace = dict[str, Any]
DIGITS = 4  # significant; tables beside the page hold full precision
POOLED = 6  # lists at least so long are kept once, however many figures have them
LEGEND = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}  # above a figure
ROW_HEIGHT = 26  # pixels of a method's line


@dataclass(frozen=True)
class Chart:
    """A figure with what stands around it.

    Attributes:
        figure: `data` and `layout` for plotly.
        alt: What it shows, in words.
        title: Heading; empty for none.
        note: How to read it; empty for none.
        height: In pixels.
        switches: Changes a reader can make to it.
        wide: Whether it takes the whole width.
    """

    figure: Figure
    alt: str
    title: str = ""
    note: str = ""
    height: int = 400
    switches: tuple[Switch, ...] = ()
    wide: bool = False


@dataclass(frozen=True)
class Switch:
    """A box to tick that changes a chart.

    Attributes:
        label: What it says.
        kind: Changes traces with this `meta.kind` alone; empty for all, or for the layout.
        on: Attributes of traces, or of the layout, when ticked.
        off: The same when not.
        layout: Whether they are of the layout.
        ticked: At first.
    """

    label: str
    kind: str
    on: Mapping[str, object]
    off: Mapping[str, object]
    layout: bool = False
    ticked: bool = False


class Charts:
    """The figures of a page; what long lists they share is written once."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []

    def add(self, chart: Chart) -> int:
        """Take in a chart and return its number."""
        self.figures.append(chart.figure)
        return len(self.figures) - 1

    def packed(self) -> dict[str, object]:
        """Return all figures as plain data: a long list is `{"$": n}`, the n-th of `lists`."""
        lists: list[object] = []
        known: dict[str, int] = {}

        def pack(value: object) -> object:
            if isinstance(value, Mapping):
                return {key: pack(each) for key, each in value.items()}
            if not isinstance(value, (list, tuple)):
                return rounded(value) if isinstance(value, float) else value
            short = [pack(each) for each in value]
            if len(short) < POOLED:
                return short
            text = json.dumps(short)
            if text not in known:
                known[text] = len(lists)
                lists.append(short)
            return {"$": known[text]}

        return {"figures": [pack(each) for each in self.figures], "lists": lists}


def rounded(value: float | None) -> float | None:
    """Round to `DIGITS` significant digits; what is not finite becomes None."""
    return None if value is None or not np.isfinite(value) else float(f"{value:.{DIGITS}g}")


def plain(text: object) -> str:
    """Return a name as plotly shows it unchanged: it reads a little markup, and none of a name's is let through."""
    return escape(str(text), quote=False)


def figure(traces: Sequence[Trace], across: str, up: str, **layout: Any) -> Figure:
    """Return a figure in the one layout of the page.

    Args:
        traces: Its traces.
        across: Title of the horizontal axis, with unit and direction.
        up: Title of the vertical one.
        layout: What else; `xaxis` and `yaxis` are added to these axes.
    """
    axes = {
        name: {
            "title": {"text": title, "font": {"size": 13}},
            "automargin": True,
            "zeroline": False,
            **layout.pop(name, {}),
        }
        for name, title in (("xaxis", across), ("yaxis", up))
    }
    base = {
        "margin": {"l": 58, "r": 14, "t": 12, "b": 50},
        "font": {"size": 13},
        "hovermode": "closest",
        "hoverlabel": {"align": "left", "font": {"size": 13}},
        "showlegend": False,
    }
    return {"data": list(traces), "layout": {**base, **axes, **layout}}


def error_bars(values: Sequence[MetricValue], colour: str) -> Trace:
    """Return the intervals of values as bars."""
    ends = [
        (0.0, 0.0)
        if each.value is None or each.low is None or each.high is None
        else (each.high - each.value, each.value - each.low)
        for each in values
    ]
    return {
        "type": "data",
        "symmetric": False,
        "thickness": 1.5,
        "width": 3,
        "color": colour,
        "array": [above for above, _ in ends],
        "arrayminus": [below for _, below in ends],
    }


def method_trace(
    name: str, look: Look, x: Sequence[object], y: Sequence[object], suffix: str = "", **more: Any
) -> Trace:
    """Return a trace of a method in its colour, with its family's marker; the legend can hide it."""
    trace: Trace = {
        "type": "scatter",
        "mode": "markers",
        "name": plain(name) + suffix,
        "meta": {"method": name},
        "x": list(x),
        "y": list(y),
        "marker": {"size": 10, "symbol": look.marker, "color": look.colour},
        "line": {"color": look.colour, "width": 2, "dash": look.dash},
    }
    for key, value in more.items():
        trace[key] = {**trace[key], **value} if isinstance(trace.get(key), dict) and isinstance(value, dict) else value
    return trace


def dots(
    values: Mapping[str, MetricValue], looks: Mapping[str, Look], across: str, ground: float | None = None
) -> Figure:
    """Draw one line a method: its mean with its interval, and every seed as a small mark.

    Args:
        values: By method; what has no value leaves its line empty.
        looks: By method.
        across: What the numbers are, with unit and direction.
        ground: Where a dashed line stands, such as 0 or the base model's value.
    """
    traces: list[Trace] = []
    for name, value in values.items():
        seeds = list(value.per_seed.values())
        if len(seeds) > 1:
            traces.append(
                method_trace(
                    name,
                    looks[name],
                    seeds,
                    [plain(name)] * len(seeds),
                    marker={"size": 6, "symbol": "line-ns-open"},
                    opacity=0.65,
                    text=[f"seed {seed}" for seed in value.per_seed],
                    hovertemplate=f"{plain(name)}, %{{text}}: %{{x:.3f}}<extra></extra>",
                )
            )
        if value.value is not None:
            traces.append(
                method_trace(
                    name,
                    looks[name],
                    [value.value],
                    [plain(name)],
                    error_x=error_bars([value], looks[name].colour),
                    hovertemplate=f"<b>{plain(name)}</b><br>{interval(value)}<extra></extra>",
                )
            )
    lines = [
        {
            "type": "line",
            "x0": ground,
            "x1": ground,
            "yref": "paper",
            "y0": 0,
            "y1": 1,
            "line": {"width": 1, "dash": "dash"},
        }
    ]
    order = [plain(name) for name in reversed(list(values))]
    return figure(
        traces,
        across,
        "",
        shapes=[] if ground is None else lines,
        yaxis={"type": "category", "categoryorder": "array", "categoryarray": order, "range": [-0.7, len(order) - 0.3]},
    )


def dots_height(methods: int) -> int:
    """Return the height of such a chart in pixels."""
    return 90 + ROW_HEIGHT * methods


def curves(lines: Iterable[Curve], looks: Mapping[str, Look], across: str, up: str, **layout: Any) -> Figure:
    """Draw one curve a method, with intervals, named beside the figure's top."""
    traces = [
        method_trace(
            each.method,
            looks[each.method],
            each.x,
            [value.value for value in each.values],
            mode="lines+markers",
            error_y=error_bars(each.values, looks[each.method].colour),
            line={"dash": each.dash or looks[each.method].dash},
            suffix=each.suffix,
            text=[interval(value) for value in each.values],
            hovertemplate=f"<b>{plain(each.method)}{each.suffix}</b><br>%{{x:,}}: %{{text}}<extra></extra>",
        )
        for each in lines
    ]
    return figure(traces, across, up, showlegend=True, legend=LEGEND, **layout)


@dataclass(frozen=True)
class Curve:
    """Values of one method along an axis; its line has the method's dash where it has none of its own."""

    method: str
    x: Sequence[float]
    values: Sequence[MetricValue]
    dash: str = ""
    suffix: str = ""


def heat(
    values: Sequence[Sequence[float | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    texts: Sequence[Sequence[str]],
    across: str = "",
    up: str = "",
) -> Figure:
    """Draw a table of numbers in diverging colours around 0, with a text in each field."""
    known = [abs(each) for row in values for each in row if each is not None]
    scale = max(known, default=1.0) or 1.0
    trace = {
        "type": "heatmap",
        "z": [list(row) for row in values],
        "x": [plain(each).replace("\n", "<br>") for each in columns],
        "y": [plain(each) for each in rows],
        "text": [list(row) for row in texts],
        "texttemplate": "%{text}",
        "zmin": -scale,
        "zmax": scale,
        "colorscale": [[0, "#E58F4C"], [0.5, "#FFFFFF"], [1, "#5FA3D0"]],
        "showscale": False,
        "hovertemplate": "%{y}, %{x}: %{text}<extra></extra>",
        "textfont": {"color": "#1b1d20"},
        "xgap": 2,
        "ygap": 2,
    }
    return figure([trace], across, up, xaxis={"type": "category"}, yaxis={"type": "category", "autorange": "reversed"})
