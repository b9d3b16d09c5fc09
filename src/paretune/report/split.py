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
    from matplotlib.figure import Figure

SPLIT = "completions_each"  # the setting that says how a budget is split
WIDTH = 4.5  # inches of a task's panel


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
    """Plot score against the completions that each policy gets, a panel for each task; None where none was tried."""
    curves = [curve for curve in split_curves(study.tuning) if curve.method in colours]
    tasks = list(dict.fromkeys(curve.task for curve in curves))
    if not tasks:
        return None
    figure = blank_figure(WIDTH * len(tasks), 3.6)
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    for task, axes in zip(tasks, panels, strict=True):
        mine = [curve for curve in curves if curve.task == task]
        for curve in mine:
            known = {each: value for each, value in curve.points.items() if value.value is not None}
            heights = [value.value or 0.0 for value in known.values()]
            reach = [
                0.0 if value.high is None or value.value is None else value.high - value.value
                for value in known.values()
            ]
            axes.errorbar(
                list(known), heights, yerr=reach, fmt="o-", ms=4, elinewidth=0.6, capsize=2,
                color=colours[curve.method], label=plain_text(curve.method),
            )  # fmt: skip
            at = known.get(curve.chosen)
            if at is not None and at.value is not None:
                axes.plot(curve.chosen, at.value, "o", ms=10, mfc="none", color=colours[curve.method])
        axes.set_xscale("log")
        axes.set_title(f"{plain_text(task)}, {mine[0].budget_completions:,} completions", fontsize=9)
        axes.set_xlabel("completions of each policy")
        axes.set_ylabel(f"{MEASURES[mine[0].measure]}, better \u2192")
    handles = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    add_legend(figure, list(handles.values()), list(handles))
    note = "tuning instances, other settings as chosen; circled: the split chosen; 95 % Student-t intervals"
    figure.supxlabel(note, fontsize=7, color="#666666")
    return figure
