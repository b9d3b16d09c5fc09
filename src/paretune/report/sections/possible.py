"""What methods capture of what is possible on controlled tasks, by the correlation of the objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from paretune.core.protocols import MetricRow, MetricValue
from paretune.report.charts import Chart, Curve, curves
from paretune.report.comparison import Comparison, MethodResult
from paretune.report.measured import measured, rows_of
from paretune.report.section import Section
from paretune.report.tables import Table
from paretune.report.view import View
from paretune.report.wording import MINUS, MISSING, interval, listing, number, seconds

RHO = "rho"
LIMITS = (-0.6, 1.4)  # of the axis at most: one share far below the base must not flatten all others
UNITS = {"alphabet": "letters"}
SHIFT = 0.012  # between neighbouring methods, in units of the range of rho: no interval hides another


@dataclass(frozen=True)
class Panel:
    """Controlled tasks that differ in nothing but the correlation of their objectives, at one budget.

    Attributes:
        title: What they have in common.
        columns: One task each, by rising rho.
        rhos: Their correlations; NaN where the records hold none.
        methods: Every method of any of them, a ceiling last.
    """

    title: str
    columns: tuple[Comparison, ...]
    rhos: tuple[float, ...]
    methods: tuple[MethodResult, ...]

    @property
    def drawn(self) -> bool:
        """Whether there is a line to draw: at least two correlations."""
        return len(self.columns) > 1 and bool(np.isfinite(self.rhos).all())

    def shift(self, place: int) -> float:
        """Return how far beside its rho the method at a place of `methods` is drawn."""
        return (place - (len(self.methods) - 1) / 2) * SHIFT * (max(self.rhos) - min(self.rhos))

    def shares(self, method: str, rows: Sequence[MetricRow]) -> list[MetricValue]:
        """Return a method's captured shares, one a column."""
        return [measured(rows_of(part, rows), method, "captured_share") for part in self.columns]

    def outside(self, rows: Sequence[MetricRow]) -> list[str]:
        """Name the shares that lie beyond the figure."""
        return [
            f"{method.name} {number(value.value)} at {head}"
            for method in self.methods
            for head, value in zip(_heads(self), self.shares(method.name, rows), strict=True)
            if value.value is not None and not LIMITS[0] <= value.value <= LIMITS[1]
        ]

    def volumes(self, method: str, rows: Sequence[MetricRow]) -> list[MetricValue]:
        """Return a method's relative hypervolumes, one a column."""
        return [measured(rows_of(part, rows), method, "true_front", "relative hypervolume") for part in self.columns]


def panels(parts: Sequence[Comparison], rows: Sequence[MetricRow]) -> list[Panel]:
    """Group the tasks of a study whose optimum is known.

    Args:
        parts: All comparisons of the study.
        rows: All rows of its metrics.
    """
    groups: dict[tuple[int, tuple[tuple[str, float], ...], str], list[Comparison]] = {}
    for part in parts:
        if any(measured(rows_of(part, rows), each.name, "captured_share").value is not None for each in part.methods):
            others = tuple(sorted((name, value) for name, value in part.task.family_settings.items() if name != RHO))
            groups.setdefault((part.budget_completions, others, part.feedback), []).append(part)
    found = []
    for (budget, others, feedback), members in groups.items():
        members.sort(key=_rho)
        methods = {method.name: method for part in members for method in part.methods}
        common = [f"{UNITS.get(name, name)} {value:g}" for name, value in others]
        common += [f"feedback {feedback}"] if feedback else []
        found.append(
            Panel(
                ", ".join([f"{budget:,} completions", *common]),
                tuple(members),
                tuple(_rho(part) for part in members),
                tuple(sorted(methods.values(), key=lambda method: method.ceiling)),
            )
        )
    return found


def share_table(panel: Panel, rows: Sequence[MetricRow]) -> Table:
    """Return captured shares, a row a method and a column a correlation, the ceiling last."""
    title = f"Captured share of the possible gain in J [95 % interval over seeds]; {panel.title}"
    lines = [(method.name, *(interval(value) for value in panel.shares(method.name, rows))) for method in panel.methods]
    return Table("captured_share", title, ("method", *_heads(panel)), tuple(lines))


def volume_table(panel: Panel, rows: Sequence[MetricRow]) -> Table:
    """Return relative hypervolumes, and the seconds it took to score one policy exactly."""
    title = f"Relative hypervolume [95 % interval over seeds]; {panel.title}"
    lines = [
        (
            method.name,
            *(interval(value) for value in panel.volumes(method.name, rows)),
            _scoring(panel, method.name),
        )
        for method in panel.methods
    ]
    return Table("relative_hypervolume", title, ("method", *_heads(panel), "scoring a policy"), tuple(lines))


def controlled_table(parts: Sequence[Comparison], rows: Sequence[MetricRow]) -> Table | None:
    """Return the numbers of all panels in full, one line a method and task; None without a known optimum."""
    lines = []
    for panel in panels(parts, rows):
        for method in panel.methods:
            shares, volumes = panel.shares(method.name, rows), panel.volumes(method.name, rows)
            for part, rho, share, volume in zip(panel.columns, panel.rhos, shares, volumes, strict=True):
                spent = _seconds(part, method.name)
                lines.append(
                    (
                        part.task.name, part.budget_completions, rho if np.isfinite(rho) else None, method.name,
                        "yes" if method.ceiling else "no", share.value, share.low, share.high,
                        volume.value, volume.low, volume.high, spent, len(share.per_seed),
                    )
                )  # fmt: skip
    columns = (
        "task", "budget_completions", "rho", "method", "ceiling", "captured_share", "captured_low", "captured_high",
        "relative_hypervolume", "hypervolume_low", "hypervolume_high", "scoring_seconds_per_policy", "seeds",
    )  # fmt: skip
    title = "What methods capture of what is possible, by correlation of the objectives"
    return Table("controlled", title, columns, tuple(lines)) if lines else None


def _rho(part: Comparison) -> float:
    return part.task.family_settings.get(RHO, float("nan"))


def _heads(panel: Panel) -> list[str]:
    return [
        f"rho {rho:g}".replace("-", MINUS) if np.isfinite(rho) else part.task.name
        for part, rho in zip(panel.columns, panel.rhos, strict=True)
    ]


def _seconds(part: Comparison, name: str) -> float | None:
    found = (
        [cell.outcomes.seconds for cell in part.method(name).done if cell.outcomes is not None]
        if _has(part, name)
        else []
    )
    return float(np.mean(found)) if found else None


def _scoring(panel: Panel, name: str) -> str:
    found = [value for value in (_seconds(part, name) for part in panel.columns) if value is not None]
    if not found:
        return MISSING
    mean = float(np.mean(found))
    return f"{mean:.2f} s" if mean < 1 else seconds(mean)


def _has(part: Comparison, name: str) -> bool:
    return any(method.name == name for method in part.methods)


HOW = (
    "The completions of these tasks can all be listed, so the best policy for every preference is known, and every "
    "policy is scored without sampling. Captured share is the gain in J over the base model divided by the best "
    "policies' gain: 0 for the base model, 1 for the best policies. rho is the rank correlation of any two objectives "
    "under the base model. Each seed is another instance of the task. The ceiling, dashed, is no method: experts of "
    "the same size trained on the exact objective. Relative hypervolume divides the volume of a method's policies by "
    "that of the whole exact front; so few policies do not fill it, and where they lie on it matters."
)


def data(view: View) -> Mapping[str, object]:
    """Draw captured share against the correlation, a panel for each budget."""
    found = panels(view.comparisons, view.rows)
    outside = [
        f"Beyond the edge of “{each.title}”: {listing(each.outside(view.rows))}."
        for each in found
        if each.drawn and each.outside(view.rows)
    ]
    return {
        "sentences": [],
        "charts": [_chart(each, view) for each in found if each.drawn],
        "tables": [table for each in found for table in (share_table(each, view.rows), volume_table(each, view.rows))],
        "notes": outside,
        "how": HOW,
    }


def needs(view: View) -> str:
    """Return why this is not known."""
    return "" if panels(view.comparisons, view.rows) else "no task whose optimum is known"


def _chart(panel: Panel, view: View) -> Chart:
    lines = []
    for place, method in enumerate(panel.methods):
        points = [
            (rho + panel.shift(place), value)
            for rho, value in zip(panel.rhos, panel.shares(method.name, view.rows), strict=True)
            if value.value is not None
        ]
        lines.append(
            Curve(
                method.name,
                [x for x, _ in points],
                [value for _, value in points],
                suffix=" (ceiling)" if method.ceiling else "",
            )
        )
    ends = [
        end for line in lines for each in line.values for end in (each.value, each.low, each.high) if end is not None
    ]
    limits = [max(LIMITS[0], min([-0.05, *ends]) - 0.03), min(LIMITS[1], max([1.05, *ends]) + 0.05)]
    lines_at = [
        {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": {"width": 1, "dash": "dot"}}
        for y in (0, 1)
    ]
    named = [
        {
            "xref": "paper",
            "x": 1,
            "y": y,
            "text": text,
            "showarrow": False,
            "xanchor": "right",
            "yanchor": "bottom",
            "font": {"size": 12},
        }
        for y, text in ((0, "base model"), (1, "the best policies"))
    ]
    drawn = curves(
        lines,
        view.looks,
        "rho, correlation of the objectives: competing ← → agreeing",
        "captured share, better →",
        yaxis={"range": limits},
        xaxis={"tickvals": list(panel.rhos)},
        shapes=lines_at,
        annotations=named,
    )
    return Chart(
        drawn,
        "Captured share against the correlation of the objectives, one line a method; the table holds the numbers",
        panel.title,
    )


SECTION = Section(
    "possible",
    "Correlated or competing: how much of what is possible? (shares of the best policies' gain)",
    "Of the possible",
    data,
    needs,
    of="study",
)
