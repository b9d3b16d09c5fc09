"""What every static figure starts and ends with: style, an empty figure, a note below it, its two files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER: dict[str, Any] = {
    "facecolor": "white",
    "alpha": 0.6,
    "linewidth": 0,
    "pad": 1.5,
}  # behind numbers, over hatching
MARK_WIDTH, LETTER_WIDTH, ROW_HEIGHT = 0.6, 0.066, 0.2  # inches of a legend: a mark, a letter of a name, a row
PNG_DPI = 150
DIVERGING = ("#E58F4C", "#FFFFFF", "#5FA3D0")  # vermilion and blue of the palette, lightened: black text stays legible
STYLE: dict[Any, Any] = {  # matplotlib types each key by its name
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e6e6e1",
    "axes.axisbelow": True, "legend.frameon": False, "svg.fonttype": "none", "svg.hashsalt": "paretune",
}  # fmt: skip


def blank_figure(width: float, height: float) -> Figure:
    """Return a figure with nothing in it, of so many inches."""
    from matplotlib.figure import Figure as MatplotlibFigure  # without pyplot: no global state, no display

    return MatplotlibFigure(figsize=(width, height), layout="constrained")


def add_legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Write a legend above a figure, in as many rows as its names need; the figure grows by all but the first.

    Where nothing is named there is none.
    """
    if not labels:
        return
    width = MARK_WIDTH + LETTER_WIDTH * max(map(len, labels))
    columns = min(len(labels), max(1, int(figure.get_figwidth() / width)))
    figure.set_figheight(figure.get_figheight() + ROW_HEIGHT * (-(-len(labels) // columns) - 1))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns)


def plain_text(name: str) -> str:
    """Return a name as matplotlib shows it unchanged: a dollar sign would start mathematics."""
    return name.replace("$", r"\$")


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as PDF, SVG and PNG, and return the files."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    files = {ending: path.parent / f"{path.name}.{ending}" for ending in ("svg", "pdf", "png")}
    engine, dpi = figure.get_layout_engine(), figure.dpi
    if engine is not None:
        engine.execute(figure)  # once for all three
        figure.set_layout_engine("none")
    # Each canvas writes by itself: `savefig` draws the whole figure once more before, to find out what it covers.
    FigureCanvasSVG(figure).print_svg(files["svg"], metadata={"Date": None})
    figure.set_dpi(dpi)  # a canvas leaves its own behind
    FigureCanvasPdf(figure).print_pdf(files["pdf"], metadata={"CreationDate": None})
    figure.set_dpi(PNG_DPI)
    FigureCanvasAgg(figure).print_png(files["png"])
    return list(files.values())
