"""How a budget is split: what tuning scored for few well-trained policies and for many, as a table and a curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paretune.core.protocols import MetricValue
from paretune.metrics.seeds import seed_mean
from paretune.records.study import StudyRecords, TuningMeasure, TuningRecord
from paretune.report.drawing import add_legend, blank_figure, plain_text
from paretune.report.tables import Table, Value
from paretune.report.tuning import MEASURES
from paretune.report.wording import MANY, listing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPLIT = "completions_each"  # the setting that says how a budget is split
WIDTH = 4.5  # inches of a task's panel
SMALL, SMALL_COLUMNS = (1.8, 1.5), 6  # inches of a panel of one method, and how many stand beside each other


@dataclass(frozen=True)
class SplitCurve:
    """What one method scored on one task with each split of the budget, its other settings as they were chosen.

    Attributes:
        task: The task.
        method: The method.
        measure: What a score is.
        budget_completions: The budget.
        points: Completions each -> mean over tuning instances, with a Student-t interval.
        chosen: The split that was chosen.
    """

    task: str
    method: str
    measure: TuningMeasure
    budget_completions: int
    points: Mapping[float, MetricValue]
    chosen: float


def split_curves(records: Sequence[TuningRecord]) -> list[SplitCurve]:
    """Return the curve of every sweep that tried several splits and has chosen one."""
    curves = []
    for record in records:
        if record.chosen is None or SPLIT not in record.points[record.chosen].settings:
            continue
        best = record.points[record.chosen].settings
        found = {}
        for point in record.points:
            if {**point.settings, SPLIT: None} == {**best, SPLIT: None}:
                values = {seed: value for seed, value in point.per_seed.items() if value is not None}
                found[float(str(point.settings[SPLIT]))] = seed_mean(values, point.reason)
        if len(found) > 1:
            ordered = dict(sorted(found.items()))
            curves.append(
                SplitCurve(
                    record.task, record.method, record.measure, record.budget_completions, ordered,
                    float(str(best[SPLIT])),
                )
            )  # fmt: skip
    return curves


def split_table(study: StudyRecords) -> Table | None:
    """Return a row for each method and split; None where no sweep tried several."""
    columns = ("task", "method", "completions", SPLIT, "measure", "score", "low", "high", "chosen")
    rows: list[tuple[Value, ...]] = []
    for curve in split_curves(study.tuning):
        head = (curve.task, curve.method, curve.budget_completions)
        for each, value in curve.points.items():
            chosen = "yes" if each == curve.chosen else "no"
            rows.append((*head, int(each), MEASURES[curve.measure], value.value, value.low, value.high, chosen))
    title = "Splits of one budget, other settings as chosen; intervals over tuning instances"
    return Table("split", title, columns, tuple(rows)) if rows else None


def split_sentence(study: StudyRecords) -> str:
    """Say by how much the split of a budget moves the score of each method; of many methods only the least and most.

    Empty where none was tried.
    """
    spreads = {}
    for curve in split_curves(study.tuning):
        values = [value.value for value in curve.points.values() if value.value is not None]
        if len(values) > 1:
            spreads[f"{curve.method} on {curve.task}", curve.chosen] = max(values) - min(values)
    if not spreads:
        return ""
    shown = sorted(spreads.items(), key=lambda item: item[1])
    more = f", from {shown[0][1]:.3g} to {shown[-1][1]:.3g} over {len(shown)} sweeps" if len(shown) > MANY else ""
    parts = [
        f"{name} by {spread:.3g} ({chosen:,.0f} chosen)"
        for (name, chosen), spread in ((shown[0], shown[-1]) if more else spreads.items())
    ]
    return f"How a budget is split ({SPLIT}) moves scores{more}: {listing(parts)}; figures/split shows it as a curve."


def split_figure(study: StudyRecords, colours: Mapping[str, str]) -> Figure | None:
    """Plot score against the completions that each policy gets; None where none was tried.

    A panel for each task and measure; for each method of it where methods are too many to tell their lines apart.
    """
    curves = [curve for curve in split_curves(study.tuning) if curve.method in colours]
    kinds = list(dict.fromkeys((curve.task, curve.measure) for curve in curves))
    if not kinds:
        return None
    shown = [[curve for curve in curves if (curve.task, curve.measure) == kind] for kind in kinds]
    apart = max(map(len, shown)) > MANY
    if apart:
        shown = [[curve] for curve in curves]
    columns = min(len(shown), SMALL_COLUMNS) if apart else len(shown)
    count, width, height = -(-len(shown) // columns), *(SMALL if apart else (WIDTH, 3.6))
    figure = blank_figure(width * columns, height * count)
    panels = figure.subplots(count, columns, squeeze=False, sharex=apart, sharey=apart).ravel()
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    for mine, axes in zip(shown, panels, strict=False):
        for curve in mine:
            _draw(axes, curve, colours[curve.method])
        axes.set_xscale("log")
        tried = sorted({each for curve in mine for each in curve.points})
        axes.set_xticks(tried, [f"{each:,.0f}" for each in tried], fontsize=7)
        axes.minorticks_off()
        task = f"{plain_text(mine[0].task)}, {mine[0].budget_completions:,} completions"
        alone = plain_text(mine[0].method) + (f"\n{task}" if len({name for name, _ in kinds}) > 1 else "")
        axes.set_title(alone if apart else task, fontsize=7 if apart else 9)
        if not apart:
            axes.set_ylabel(f"{MEASURES[mine[0].measure]}, better \u2192")
    if apart:
        measures = listing(list(dict.fromkeys(MEASURES[curve.measure] for curve in curves)), "or")
        figure.supylabel(f"{measures}, better \u2192", fontsize=9)
    else:
        drawn = [axes.get_legend_handles_labels() for axes in panels]
        handles = {label: handle for each in drawn for handle, label in zip(*each, strict=True)}
        add_legend(figure, list(handles.values()), list(handles))
    note = "tuning instances, other settings as chosen\ncircled: the split chosen; 95 % Student-t intervals"
    figure.supxlabel(f"completions of each policy\n{note}", fontsize=7, color="#666666")
    return figure


def _draw(axes: Axes, curve: SplitCurve, colour: str) -> None:
    known = {each: value for each, value in curve.points.items() if value.value is not None}
    heights = [value.value or 0.0 for value in known.values()]
    reach = [0.0 if value.high is None or value.value is None else value.high - value.value for value in known.values()]
    axes.errorbar(
        list(known), heights, yerr=reach, fmt="o-", ms=4, elinewidth=0.6, capsize=2, color=colour,
        label=plain_text(curve.method),
    )  # fmt: skip
    at = known.get(curve.chosen)
    if at is not None and at.value is not None:
        axes.plot(curve.chosen, at.value, "o", ms=10, mfc="none", color=colour)
