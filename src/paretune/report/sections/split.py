"""How a budget is split: what tuning scored for few well-trained policies and for many, as a table and a chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paretune.core.protocols import MetricValue
from paretune.metrics.seeds import seed_mean
from paretune.records.study import StudyRecords, TuningMeasure, TuningRecord
from paretune.report.charts import Chart, Curve, curves, method_trace
from paretune.report.sections.tuning import MEASURES
from paretune.report.tables import Table, Value
from paretune.report.view import View
from paretune.report.wording import MANY, listing

SPLIT = "completions_each"  # the setting that says how a budget is split


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
    return f"How a budget is split ({SPLIT}) moves scores{more}: {listing(parts)}."


def split_charts(view: View) -> list[Chart]:
    """Draw score against the completions that each policy gets; a chart for each task and measure, of few methods."""
    found = [curve for curve in split_curves(view.study.tuning) if curve.method in view.looks]
    kinds = dict.fromkeys((curve.task, curve.measure) for curve in found)
    groups = [[curve for curve in found if (curve.task, curve.measure) == kind] for kind in kinds]
    return [_chart(group[start : start + MANY], view) for group in groups for start in range(0, len(group), MANY)]


def _chart(group: Sequence[SplitCurve], view: View) -> Chart:
    first = group[0]
    lines, rings = [], []
    for each in group:
        known = {split: value for split, value in each.points.items() if value.value is not None}
        lines.append(Curve(each.method, list(known), list(known.values())))
        if each.chosen in known:
            ring = {"size": 18, "symbol": "circle-open", "line": {"width": 2}}
            rings.append(
                method_trace(
                    each.method, view.looks[each.method], [each.chosen], [known[each.chosen].value], marker=ring,
                    showlegend=False, hoverinfo="skip",
                )
            )  # fmt: skip
    tried = sorted({split for each in group for split in each.points})
    ticks = {"type": "log", "tickvals": tried, "ticktext": [f"{each:,.0f}" for each in tried]}
    up = f"{MEASURES[first.measure]}, better \u2192"
    drawn = curves(lines, view.looks, "completions of each policy", up, xaxis=ticks)
    drawn["data"] += rings
    title = f"How a budget is split: {first.task}, {first.budget_completions:,} completions"
    note = "Tuning instances, other settings as chosen; circled: the split chosen; 95 % Student-t intervals."
    return Chart(drawn, f"{MEASURES[first.measure]} against completions of each policy, one line a method", title, note)
