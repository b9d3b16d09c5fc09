"""The charts of the page as static figures, PDF, SVG and PNG, drawn from the same data by matplotlib."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paretune.report.charts import Chart, Trace
from paretune.report.drawing import DIVERGING, STYLE, add_legend, blank_figure, plain_text, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, WIDE, INCH = 6.0, 10.0, 100  # inches of a chart, and of one that takes the whole width; pixels of an inch
SHAPES = {
    "circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "triangle-down": "v", "cross": "P",
    "pentagon": "p", "hourglass": "d", "star": "*", "x-thin": "x", "line-ns": "|",
}  # fmt: skip
DASHES = {"solid": "-", "dash": "--", "longdash": (0, (8, 3)), "dot": ":"}


def write_charts(charts: Iterable[tuple[str, Chart]], folder: Path) -> list[Path]:
    """Draw charts, each into files of its name; those without a point are left out.

    Args:
        charts: Names of files without ending, and what to draw.
        folder: Where to; made if missing.

    Returns:
        The files written.
    """
    import matplotlib as mpl

    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a name in a script the font lacks: boxes
        for name, chart in charts:
            if any(trace.get("z") or len(trace.get("x", ())) for trace in chart.figure["data"]):
                files += save_figure(static(chart), folder / name)
    return files


def static(chart: Chart) -> Figure:
    """Draw a chart of the page with matplotlib."""
    figure = blank_figure(WIDE if chart.wide else WIDTH, max(chart.height / INCH, 1.8))
    axes = figure.add_subplot()
    layout = chart.figure["layout"]
    positions = {name: _positions(chart.figure["data"], layout[f"{name}axis"], name) for name in "xy"}
    below: Any = None
    for trace in chart.figure["data"]:
        if trace.get("visible") is False:
            continue
        if trace["type"] == "heatmap":
            _heat(axes, trace)
        else:
            below = _scatter(axes, trace, positions, below)
    for shape in layout.get("shapes", ()):
        line = axes.axvline if shape["x0"] == shape["x1"] else axes.axhline
        line(shape["x0"] if shape["x0"] == shape["x1"] else shape["y0"], color="#777777", lw=0.8, ls="--")
    for note in layout.get("annotations", ()):
        upright = note.get("yref") == "paper"  # else the other axis is
        place = axes.get_xaxis_transform() if upright else axes.get_yaxis_transform()
        axes.text(
            note["x"], note["y"], _text(note["text"]), transform=place, fontsize=7, ha="right",
            va="top" if upright else "bottom", rotation=90 if upright else 0,
        )  # fmt: skip
    for name in "xy":
        _axis(axes, layout[f"{name}axis"], name, positions[name])
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    add_legend(figure, list(handles.values()), list(handles))
    if chart.title:
        figure.supxlabel(plain_text(chart.title), fontsize=7, color="#666666")
    return figure


def _text(text: object) -> str:
    return plain_text(unescape(str(text).replace("<br>", "\n").replace("<b>", "").replace("</b>", "")))


def _positions(traces: Sequence[Trace], axis: Trace, name: str) -> dict[str, int]:
    """Give each category of an axis its place; none where the axis has numbers."""
    named = axis.get("categoryarray") or [
        each for trace in traces if trace["type"] != "heatmap" for each in trace[name] if isinstance(each, str)
    ]
    return {each: place for place, each in enumerate(dict.fromkeys(named))}


def _scatter(axes: Axes, trace: Trace, positions: dict[str, dict[str, int]], below: Any) -> Any:
    """Draw one trace, and the band down to the one before where it is filled; return its heights."""
    x, y = (
        np.array([positions[name].get(each, np.nan) if isinstance(each, str) else each for each in trace[name]], float)
        for name in "xy"
    )
    marker, line, mode = trace.get("marker", {}), trace.get("line", {}), trace["mode"]
    symbol = marker.get("symbol", "circle")
    symbols = list(symbol) if isinstance(symbol, list) else [symbol] * len(x)
    colour = marker.get("color", line.get("color"))
    steps: Any = "steps-post" if line.get("shape") == "hv" else "default"
    label = _text(trace["name"]) if "markers" in mode and trace.get("meta", {}).get("method") else None
    if trace.get("fill") == "tonexty" and below is not None:
        axes.fill_between(x, np.asarray(below), y, color=colour, alpha=0.15, lw=0, step="post")
    if "lines" in mode and line.get("width", 1):
        style = DASHES[line.get("dash", "solid")]
        axes.plot(x, y, color=line.get("color", colour), ls=style, lw=line.get("width", 1) / 1.5, drawstyle=steps)
    bars = {key: _reach(trace.get(f"error_{key[0]}")) for key in ("xerr", "yerr")}
    for each in dict.fromkeys(symbols) if "markers" in mode else ():
        mine = np.array([one == each for one in symbols])
        shape, hollow = SHAPES[each.removesuffix("-open")], each.endswith("-open")
        some: Any = {key: None if value is None else value[:, mine] for key, value in bars.items()}
        axes.errorbar(
            x[mine], y[mine], **some, fmt=shape, color=colour, mfc="white" if hollow else colour, elinewidth=0.6,
            ms=marker.get("size", 8) / 2, label=None if hollow or "line" in each else label,
        )  # fmt: skip
    if "text" in mode:
        for across, up, said in zip(x, y, trace["text"], strict=True):
            axes.annotate(_text(said), (across, up), textcoords="offset points", xytext=(4, -9), fontsize=7)
    return y


def _reach(bars: Trace | None) -> Any:
    return None if bars is None or bars.get("visible") is False else np.array([bars["arrayminus"], bars["array"]])


def _heat(axes: Axes, trace: Trace) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    values = np.array([[np.nan if each is None else each for each in row] for row in trace["z"]], float)
    colours = LinearSegmentedColormap.from_list("below_above", DIVERGING)
    axes.grid(visible=False)
    axes.imshow(values, cmap=colours, vmin=trace["zmin"], vmax=trace["zmax"], aspect="auto")
    for row, column in np.ndindex(values.shape if "texttemplate" in trace else (0, 0)):  # else fields are too small
        axes.text(column, row, _text(trace["text"][row][column]), ha="center", va="center", fontsize=7)
    axes.set_xticks(range(len(trace["x"])), [_text(each) for each in trace["x"]], fontsize=7)
    axes.set_yticks(range(len(trace["y"])), [_text(each) for each in trace["y"]])


def _axis(axes: Axes, axis: Trace, name: str, positions: dict[str, int]) -> None:
    axes.set(**{f"{name}label": _text(axis["title"]["text"])})
    if axis.get("type") == "log":
        axes.set(**{f"{name}scale": "log"})
    elif "range" in axis:
        axes.set(**{f"{name}lim": axis["range"]})
    elif axis.get("rangemode") == "tozero":
        axes.set(**{f"{name}lim": (0, None)})
    if positions:
        getattr(axes, f"set_{name}ticks")(list(positions.values()), [_text(each) for each in positions])
    elif "tickvals" in axis:
        texts = axis.get("ticktext") or [f"{each:g}" for each in axis["tickvals"]]
        getattr(axes, f"set_{name}ticks")(axis["tickvals"], texts)
        axes.minorticks_off()
