"""Static figures of what is possible: captured share by correlation, and utility against KL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from paretune.core.protocols import MetricRow, MetricValue
from paretune.records.study import StudyRecords
from paretune.report.comparison import Comparison, FloatArray
from paretune.report.controlled import LIMITS, Panel
from paretune.report.drawing import add_legend, add_note, blank_figure, plain_text
from paretune.report.kl_curves import kl_curves, optimum
from paretune.report.palette import BASE_COLOUR, MATPLOTLIB_MARKERS, family_marker

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def share_figure(panel: Panel, rows: Sequence[MetricRow], colours: Mapping[str, str]) -> Figure | None:
    """Plot captured share against the correlation of the objectives, the ceiling dashed; None with one correlation."""
    if not panel.drawn:
        return None
    figure = blank_figure(6.0, 4.0)
    axes = figure.add_subplot()
    for place, method in enumerate(panel.methods):
        values = zip(panel.rhos, panel.shares(method.name, rows), strict=True)
        known = [(rho + panel.shift(place), value) for rho, value in values if value.value is not None]
        axes.errorbar(
            [across for across, _ in known],
            _heights([value for _, value in known]),
            yerr=_reach([value for _, value in known]),
            fmt=MATPLOTLIB_MARKERS[family_marker(method.family)],
            ls="--" if method.ceiling else "-",
            color=colours[method.name],
            label=plain_text(method.name) + (" (ceiling)" if method.ceiling else ""),
            ms=5,
            elinewidth=0.6,
            capsize=2,
        )
    for level, words in ((1, "the best policies"), (0, "base model")):
        axes.axhline(level, color=BASE_COLOUR, ls=":", lw=0.8)
        axes.annotate(
            words,
            (1, level),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=7,
            color=BASE_COLOUR,
        )
    axes.set_ylim(max(LIMITS[0], axes.get_ylim()[0]), min(LIMITS[1], max(1.08, axes.get_ylim()[1])))
    axes.set_xticks(panel.rhos)
    axes.set_xlabel("rho: correlation of the objectives")
    axes.set_ylabel("captured share, better \u2192")
    add_legend(figure, *axes.get_legend_handles_labels())
    note = f"{panel.title}; 95 % Student-t intervals over seeds"
    outside = panel.outside(rows)
    beyond = f"\nbeyond the edge: {', '.join(map(plain_text, outside))}" if outside else ""
    figure.supxlabel(note + beyond, fontsize=7, color="#666666")
    return figure


def kl_figure(
    part: Comparison, parts: Sequence[Comparison], study: StudyRecords, colours: Mapping[str, str]
) -> Figure | None:
    """Plot utility against KL as policies are scaled; hollow: other budgets. None without scaled policies."""
    curves = kl_curves(part, parts)
    if not curves:
        return None
    figure = blank_figure(6.0, 4.0)
    axes = figure.add_subplot()
    for each in curves:
        shape, colour = MATPLOTLIB_MARKERS[family_marker(each.method.family)], colours[each.method.name]
        label = plain_text(each.method.name) + (" (ceiling)" if each.method.ceiling else "")
        heights = _heights(each.utilities)
        style = "--" if each.method.ceiling else "-"
        axes.errorbar(
            each.kl, heights, yerr=_reach(each.utilities), fmt=shape, ls=style, color=colour, label=label, ms=4,
            elinewidth=0.5,
        )  # fmt: skip
        for _, kl, value in each.others:
            axes.errorbar(
                [kl], _heights([value]), yerr=_reach([value]), fmt=shape, color=colour, mfc="white", elinewidth=0.5
            )
    best = optimum(part, study)
    if best is not None:
        axes.plot(*np.array(best, dtype=np.float64)[:, None], "*", color="black", ms=10, label="the best policies")
    axes.set_xlabel("KL to the base model, nats")
    axes.set_ylabel("utility, mean over preferences \u2192")
    add_legend(figure, *axes.get_legend_handles_labels())
    add_note(figure, part, "; hollow: other budgets" if any(each.others for each in curves) else "")
    return figure


def _heights(values: Sequence[MetricValue]) -> FloatArray:
    return np.array([np.nan if value.value is None else value.value for value in values])


def _reach(values: Sequence[MetricValue]) -> FloatArray | None:
    """Return lengths of the lower and upper bars, `[2, N]`; None where no value has an interval."""
    if all(value.low is None for value in values):
        return None
    ends = [
        (0.0, 0.0)
        if value.value is None or value.low is None or value.high is None
        else (value.value - value.low, value.high - value.value)
        for value in values
    ]
    return np.array(ends).T
