"""Static figures for papers, SVG and PNG: front, heat map, cost. The page draws its own."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from paretune.core.protocols import MetricRow
from paretune.pareto.front import front
from paretune.records.study import StudyRecords
from paretune.report.comparison import Comparison, FloatArray, comparisons, shown_colours
from paretune.report.costs import costs
from paretune.report.drawing import DIVERGING, PAPER, STYLE, add_legend, add_note, blank_figure, plain_text, save_figure
from paretune.report.embedded_data import MAX_COLUMNS, shown_preferences
from paretune.report.estimates import column_mean
from paretune.report.heat_map import baselines, heat_map, separable
from paretune.report.measured import judged
from paretune.report.palette import BASE_COLOUR, MATPLOTLIB_MARKERS, family_marker
from paretune.report.wording import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PAIRS = 6


def write_figures(study: StudyRecords, rows: Sequence[MetricRow], folder: Path) -> list[Path]:
    """Write the figures of every task and budget.

    Args:
        study: The study.
        rows: Its metrics.
        folder: Where to; made if missing.

    Returns:
        The files written; a figure that has nothing to show is left out.
    """
    import matplotlib as mpl

    from paretune.report.controlled import panels
    from paretune.report.exact_figures import kl_figure, share_figure  # they are made of what is below
    from paretune.report.split import split_figure

    folder.mkdir(parents=True, exist_ok=True)
    parts = comparisons(study)
    colours = shown_colours(parts)
    files = []
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a name in a script the font lacks: boxes
        for index, part in enumerate(parts):
            suffix = "" if len(parts) == 1 else f"_{index + 1}"
            drawn = {
                "front": front_figure(part, colours),
                "heat_map": heat_map_figure(part),
                "cost": cost_figure(part, rows, colours),
                "kl_matched": kl_figure(part, parts, study, colours),
            }
            for name, figure in drawn.items():
                if figure is not None:
                    files += save_figure(figure, folder / f"{name}{suffix}")
        shares = panels(parts, rows)
        for index, panel in enumerate(shares):
            figure = share_figure(panel, rows, colours)
            if figure is not None:
                suffix = "" if len(shares) == 1 else f"_{index + 1}"
                files += save_figure(figure, folder / f"captured_share{suffix}")
        split = split_figure(study, colours)
        if split is not None:
            files += save_figure(split, folder / "split")
    return files


def front_figure(part: Comparison, colours: dict[str, str]) -> Figure | None:
    """Plot mean scores with intervals, one panel per pair of objectives; None without points or pairs."""
    pairs = list(itertools.combinations(range(len(part.objectives)), 2))[:MAX_PAIRS]
    if not pairs or not any(method.done for method in part.methods):
        return None
    figure = blank_figure(4.0 * min(len(pairs), 3), 3.6 * -(-len(pairs) // 3))
    for place, (a, b) in enumerate(pairs):
        axes = figure.add_subplot(-(-len(pairs) // 3), min(len(pairs), 3), place + 1)
        for method in part.methods:
            shape = MATPLOTLIB_MARKERS[family_marker(method.family)]
            across, up = _estimates(part, method.scores[:, :, a]), _estimates(part, method.scores[:, :, b])
            colour = colours[method.name]
            for shown, fill in ((~part.task.unseen, colour), (part.task.unseen, "white")):
                label = "_"  # not in the legend
                if fill == colour:
                    label = f"{plain_text(method.name)} ({method.family})"
                x, y = across[:, shown], up[:, shown]
                axes.errorbar(
                    x[0],
                    y[0],
                    xerr=x[1:],
                    yerr=y[1:],
                    fmt=shape,
                    color=colour,
                    mfc=fill,
                    ms=5,
                    elinewidth=0.6,
                    label=label,
                )
            _draw_steps(
                axes, np.stack([across[0], up[0]], axis=1), part.task.reference_point[[a, b]], colour, method.ceiling
            )
        base = _estimates(part, part.base_scores)
        axes.plot(base[0, a], base[0, b], "*", color=BASE_COLOUR, ms=9, ls="", label="base model")
        axes.plot(*part.task.reference_point[[a, b]], "x", color=BASE_COLOUR, label="reference point")
        axes.set_xlabel(f"{plain_text(part.objectives[a])}: mean reward, better \u2192")
        axes.set_ylabel(f"{plain_text(part.objectives[b])}: mean reward, better \u2192")
    add_legend(figure, *figure.axes[0].get_legend_handles_labels())
    add_note(figure, part, "; hollow: unseen preference")
    return figure


def heat_map_figure(part: Comparison) -> Figure | None:
    """Draw the difference to the base model in utility, or J; hatched where it cannot be told from 0."""
    from matplotlib.colors import LinearSegmentedColormap

    names = baselines(part)
    if not names or not any(method.done for method in part.methods):
        return None
    shown = shown_preferences(len(part.labels), len(part.objectives), MAX_COLUMNS)
    found = heat_map(part, names[0], shown)
    values = np.array([[np.nan if each.value is None else each.value for each in row] for row in found.differences])
    figure = blank_figure(2.2 + 0.85 * len(shown), 1.9 + 0.5 * len(part.methods))
    axes = figure.add_subplot()
    axes.grid(visible=False)
    scale = found.scale or 1.0
    colours = LinearSegmentedColormap.from_list("below_above", DIVERGING)
    image = axes.imshow(values.astype(np.float64), cmap=colours, vmin=-scale, vmax=scale, aspect="auto")
    for row, column in np.ndindex(values.shape):
        value = found.differences[row][column]
        if not separable(value):
            axes.fill_between(
                [column - 0.5, column + 0.5],
                row - 0.5,
                row + 0.5,
                facecolor="none",
                edgecolor="#888888",
                hatch="///",
                lw=0,
            )
        axes.text(column, row, number(value.value, signed=True), ha="center", va="center", bbox=PAPER)
    axes.set_yticks(range(len(found.methods)), [plain_text(name) for name in found.methods])
    axes.set_xticks(range(len(shown)), [_column(part, column) for column in shown], fontsize=7)
    figure.colorbar(image, label=f"{part.task.judged_on} minus {plain_text(names[0])}", shrink=0.9)
    add_note(figure, part, "; hatched: may be 0")
    return figure


def cost_figure(part: Comparison, rows: Sequence[MetricRow], colours: dict[str, str]) -> Figure | None:
    """Plot what ranks are by against completions, seconds (filled: sum, hollow: longest chain) and decoding speed.

    None where nothing but ceilings has a value: they cost nothing that others could pay.
    """
    score, values = judged(part, rows)
    spent = [cost for cost in costs(part, rows) if not part.method(cost.method).ceiling]
    if all(values[cost.method].value is None for cost in spent):
        return None
    figure = blank_figure(11.0, 3.4)
    first, second, third = figure.subplots(1, 3, sharey=True)
    for cost in spent:
        mean, colour = values[cost.method], colours[cost.method]
        if mean.value is None:
            continue
        shape = MATPLOTLIB_MARKERS[family_marker(part.method(cost.method).family)]
        reach = None if mean.low is None or mean.high is None else (mean.high - mean.low) / 2
        for axes, value, fill in (
            (first, cost.completions.value, colour),
            (second, cost.seconds_sum.value, colour),
            (second, cost.seconds_chain.value, "white"),
            (third, cost.speed_ratio.value, colour),
        ):
            if value is not None:
                label = plain_text(cost.method) if axes is first else None
                axes.errorbar(
                    value, mean.value, yerr=reach, fmt=shape, color=colour, mfc=fill, label=label, elinewidth=0.6
                )
    third.axvline(1, color=BASE_COLOUR, ls="--", lw=0.8)
    titles = ("completions", "seconds (hollow: longest chain)", "tokens per second relative to base")
    for axes, title in zip((first, second, third), titles, strict=True):
        axes.set_xlim(0, 1.08 * axes.get_xlim()[1])
        axes.set_xlabel(title)
    first.set_ylabel(f"{score}, better \u2192")
    add_legend(figure, *first.get_legend_handles_labels())
    add_note(figure, part)
    return figure


def _estimates(part: Comparison, values: FloatArray) -> FloatArray:
    """Return mean and lengths of the lower and upper bar over seeds `[S, N]`, as `[3, N]`."""
    found = [column_mean(column, part.seeds) for column in values.T]
    rows = []
    for each in found:
        mean = np.nan if each.value is None else each.value
        rows.append(
            [mean, mean - (mean if each.low is None else each.low), (mean if each.high is None else each.high) - mean]
        )
    return np.array(rows).T


def _draw_steps(axes: Axes, points: FloatArray, corner: FloatArray, colour: str, ceiling: bool = False) -> None:
    present = points[np.isfinite(points).all(axis=1)]
    above = present[(present > corner).all(axis=1)]
    if len(above) == 0:
        return
    kept = np.unique(front(above), axis=0)  # rising across, so falling up
    across = [corner[0], *np.repeat(kept[:, 0], 2)]
    up = [*np.repeat(kept[:, 1], 2), corner[1]]
    axes.plot(across, up, color=colour, lw=0.8, alpha=0.7, ls="--" if ceiling else "-")


def _column(part: Comparison, column: int) -> str:
    unseen = "\n(unseen)" if part.task.unseen[column] else ""
    return plain_text(part.labels[column]).replace(", ", "\n") + unseen
