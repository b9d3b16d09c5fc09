"""What is reached at equal KL: policies scaled from nothing to full strength."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from paretune.core.protocols import MetricRow, MetricValue
from paretune.metrics.kl_matched import Curve as ScaledCurve
from paretune.metrics.kl_matched import curve
from paretune.records.outcomes import TruthRecord
from paretune.records.study import StudyRecords
from paretune.report.charts import Chart, Curve, curves, error_bars, method_trace, rounded
from paretune.report.comparison import Comparison, MethodResult
from paretune.report.estimates import column_mean, difference
from paretune.report.measured import rows_of
from paretune.report.palette import GREY
from paretune.report.section import Section
from paretune.report.tables import Table
from paretune.report.view import PartView
from paretune.report.wording import MISSING, interval

UTILITY = "utility at KL "


@dataclass(frozen=True)
class KlCurve:
    """One method's mean curve over seeds.

    Attributes:
        method: The method.
        kl: Mean KL in nats at every scale.
        utilities: Utility at every scale, with its interval.
        others: Budget, KL and utility of the same method's unscaled policies at the task's other budgets.
    """

    method: MethodResult
    kl: tuple[float, ...]
    utilities: tuple[MetricValue, ...]
    others: tuple[tuple[int, float, MetricValue], ...]


def kl_curves(part: Comparison, parts: Sequence[Comparison]) -> list[KlCurve]:
    """Return the curves of a comparison's methods; those without any are left out.

    Args:
        part: The comparison.
        parts: All comparisons of the study: other budgets of the task give further points.
    """
    found = []
    for method in part.methods:
        by_seed = _curves(part, method)
        if not by_seed:
            continue
        seeds = list(by_seed)
        kl = np.stack([each.kl for each in by_seed.values()]).mean(axis=0)
        utilities = np.stack([each.utilities for each in by_seed.values()])  # [seeds, scales]
        found.append(
            KlCurve(
                method,
                tuple(float(each) for each in kl),
                tuple(column_mean(column, seeds) for column in utilities.T),
                tuple(_others(part, method.name, parts)),
            )
        )
    return found


def optimum(part: Comparison, study: StudyRecords) -> list[float | None] | None:
    """Return KL and utility of the best policies, averaged over preferences and seeds; None where they are unknown."""
    truths = [study.truths[part.task.name, seed] for seed in part.seeds if (part.task.name, seed) in study.truths]
    if not truths:
        return None
    kl = float(np.mean([each.kl.mean() for each in truths]))
    utility = np.mean([_mean_utility(each) for each in truths])
    return [rounded(kl), rounded(float(utility))]


def _mean_utility(truth: TruthRecord) -> float:
    if truth.prompt_preferences is not None:
        return float(np.einsum("mpk,mpk->mp", truth.prompt_preferences, truth.rewards).mean())
    return float(np.einsum("mk,mpk->mp", truth.preferences, truth.rewards).mean())


def kl_table(part: Comparison, rows: Sequence[MetricRow]) -> Table | None:
    """Return what each method reaches at common KL levels, beside the difference to the best there, paired by seed."""
    mine = [row for row in rows_of(part, rows) if row.metric == "kl_matched" and row.label.startswith(UTILITY)]
    values = {(row.label, row.method): row.value for row in mine}
    ranked = {method.name for method in part.ranked}
    lines = []
    for label in dict.fromkeys(row.label for row in mine):
        at = {method: value for (one, method), value in values.items() if one == label and value.value is not None}
        rivals = {method: value.value for method, value in at.items() if method in ranked}
        best = max(rivals, key=lambda method: rivals[method] or 0.0, default=None)
        for method in part.methods:
            value = values.get((label, method.name), MetricValue(None, reason="not measured"))
            apart = "" if best is None or value.value is None else _apart(method.name, best, at)
            lines.append(
                (
                    label.removeprefix(UTILITY),
                    method.name,
                    interval(value),
                    apart,
                    len(value.per_seed),
                    "" if value.value is not None and value.low is not None else value.reason,
                )
            )
    columns = ("KL, nats", "method", "utility", "difference to the highest", "seeds", "why missing")
    title = (
        "Utility at equal KL, read off the curves; differences are paired by seed [95 % Student-t interval, not "
        "corrected for having chosen the highest]"
    )
    return Table("kl_matched", title, columns, tuple(lines)) if lines else None


def kl_tables(part: Comparison, rows: Sequence[MetricRow]) -> list[Table]:
    """Return the same for reading: a row a method and a column a level, utilities and then differences."""
    whole = kl_table(part, rows)
    if whole is None:
        return []
    levels = list(dict.fromkeys(line[0] for line in whole.rows))
    found = []
    for place, name, title in (
        (2, "kl_utility", "Utility at equal KL, read off the curves [95 % Student-t interval over seeds]"),
        (
            3,
            "kl_difference",
            "Difference to the method of highest utility at that KL, paired by seed [95 % interval, not corrected for "
            "that choice]",
        ),
    ):
        lines = [
            (method.name, *(line[place] for line in whole.rows if line[1] == method.name)) for method in part.methods
        ]
        found.append(Table(name, title, ("method", *(f"KL {level}" for level in levels)), tuple(lines)))
    return found


def kl_notes(part: Comparison, rows: Sequence[MetricRow]) -> list[str]:
    """Say why a method has no value at some level, one line a level and method."""
    whole = kl_table(part, rows)
    lines = [] if whole is None else [line for line in whole.rows if line[2] == MISSING]
    return [f"{line[1]} at KL {line[0]}: {line[5]}." for line in lines]


def _apart(method: str, best: str, at: Mapping[str, MetricValue]) -> str:
    return "highest method" if method == best else interval(difference(at[method], at[best]), signed=True)


def _curves(part: Comparison, method: MethodResult) -> dict[int, ScaledCurve]:
    found = {cell.seed: curve(cell, part.task) for cell in method.done}
    curves = {seed: each for seed, each in found.items() if not isinstance(each, str)}
    shapes = {each.kl.shape for each in curves.values()}
    return curves if len(shapes) == 1 else {}


def _others(part: Comparison, name: str, parts: Sequence[Comparison]) -> list[tuple[int, float, MetricValue]]:
    points = []
    for other in parts:
        if (other.task.name, other.feedback) != (
            part.task.name,
            part.feedback,
        ) or other.budget_completions == part.budget_completions:
            continue
        for method in other.methods:
            curves = _curves(other, method) if method.name == name and not method.ceiling else {}
            if curves:
                kl = float(np.mean([each.kl[-1] for each in curves.values()]))
                values = np.array([each.utilities[-1] for each in curves.values()])
                points.append((other.budget_completions, kl, column_mean(values, list(curves))))
    return points


HOW = (
    "A policy that moves further from the base model has more room to gain. Every policy's experts are scaled from "
    "nothing to full strength, without further training, so that methods can be compared at the same KL. Means over "
    "preferences and seeds, with 95 % Student-t intervals over seeds; the last point of a line is the policy itself. "
    "Hollow: the same method at the study's other budgets. Star: the best policies, where they are known."
)


def data(part: PartView) -> Mapping[str, object]:
    """Draw utility against KL."""
    found = kl_curves(part.comparison, part.view.comparisons)
    lines = [
        Curve(each.method.name, each.kl, each.utilities, suffix=" (ceiling)" if each.method.ceiling else "")
        for each in found
    ]
    look = part.view.looks
    drawn = curves(
        lines,
        look,
        "KL to the base model, nats, nearer ←",
        "utility, mean over preferences, better →",
        xaxis={"rangemode": "tozero"},
    )
    for each in found:
        values: list[MetricValue] = [value for _, _, value in each.others]
        if values:
            mine = look[each.method.name]
            drawn["data"].append(
                method_trace(
                    each.method.name,
                    mine,
                    [kl for _, kl, _ in each.others],
                    [value.value for value in values],
                    showlegend=False,
                    marker={"symbol": f"{mine.marker}-open", "line": {"width": 2}},
                    error_y=error_bars(values, mine.colour),
                    text=[f"{budget:,} completions" for budget, _, _ in each.others],
                )
            )
    best = optimum(part.comparison, part.view.study)
    if best is not None:
        drawn["data"].append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "the best policies",
                "x": best[:1],
                "y": best[1:],
                "marker": {"symbol": "star", "size": 14, "color": GREY},
            }
        )
    return {
        "sentences": [],
        "charts": [Chart(drawn, "Utility against KL, one line a method; the table below holds the numbers")],
        "tables": kl_tables(part.comparison, part.view.rows),
        "notes": kl_notes(part.comparison, part.view.rows),
        "how": HOW,
    }


def needs(part: PartView) -> str:
    """Return why there are no curves."""
    return (
        ""
        if kl_curves(part.comparison, ())
        else "No policy was scored at several scales; `evaluation: {kl_matched: true}` in the study asks for it."
    )


SECTION = Section("kl", "What is reached at equal KL?", "Equal KL", data, needs)
