"""What sections of metrics are made of: a sentence of finding, a chart of dots, a table, remarks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from paretune.core.protocols import MetricValue
from paretune.report.charts import Chart, dots, dots_height
from paretune.report.findings import lead
from paretune.report.tables import Table, Value
from paretune.report.view import PartView
from paretune.report.wording import MANY, capital, count, interval, listing, table_cell

MAX_REMARKS = 12


def unmeasured(metric: str) -> Callable[[PartView], str]:
    """Return what a section of a metric needs: one value of it."""

    def needs(part: PartView) -> str:
        values = [value for label in part.labels(metric) for value in part.values(metric, label).values()]
        if any(value.value is not None for value in values):
            return ""
        reasons = dict.fromkeys(value.reason for value in values if value.reason)
        return f"No figures: {next(iter(reasons), 'nothing was measured')}."

    return needs


def dot_chart(
    part: PartView,
    values: Mapping[str, MetricValue],
    title: str,
    across: str,
    ground: float | None = None,
    note: str = "",
) -> list[Chart]:
    """Return a chart of dots, or nothing where no method has a value."""
    if all(value.value is None for value in values.values()):
        return []
    alt = f"{title}: {listing([f'{name} {interval(value)}' for name, value in values.items()])}"
    drawn = dots(values, part.view.looks, across, ground)
    return [Chart(drawn, alt, title, note, dots_height(len(values)))]


def row_charts(part: PartView, metric: str, rows: Mapping[str, str], ground: float | None = None) -> list[Chart]:
    """Return a chart for each of some labels of a metric that has values; `rows` maps a label to its axis."""
    return [
        chart
        for label, across in rows.items()
        for chart in dot_chart(part, part.values(metric, label), capital(label), across, ground)
    ]


def _named(names: Sequence[str]) -> str:
    return listing(names) if len(names) <= MANY else count(len(names), "method")


def metric_table(part: PartView, metric: str, labels: Sequence[str], title: str) -> Table:
    """Return values with their intervals, a row a method and a column a label."""
    columns = [label for label in labels if part.values(metric, label)]
    found = {label: part.values(metric, label) for label in columns}
    missing = MetricValue(None)
    names = [each.name for each in part.comparison.methods]
    lines = [(name, *(_cell(found[label].get(name, missing)) for label in columns)) for name in names]
    return Table(metric, title, ("method", *(capital(label) or "all preferences" for label in columns)), tuple(lines))


def _cell(value: MetricValue) -> Value:
    """Write a value: an amount, such as of completions, in full, any other number rounded."""
    whole = value.value is not None and value.value >= 100 and value.low == value.value == value.high
    return table_cell(round(value.value)) if whole and value.value is not None else interval(value)


def remarks(part: PartView, metric: str, labels: Iterable[str]) -> list[str]:
    """Say why values are missing or need a note, each reason once with whose it is."""
    held: dict[str, dict[str, None]] = {}
    for label in labels:
        for name, value in part.values(metric, label).items():
            if value.reason and "one seed" not in value.reason:
                held.setdefault(f"{capital(label) or 'All preferences'}: {value.reason}", {})[name] = None
    lines = [f"{said} ({_named(list(names))})." for said, names in held.items()]
    more = [f"{len(lines) - MAX_REMARKS:,} more stand in tables.csv."] if len(lines) > MAX_REMARKS else []
    return [*lines[:MAX_REMARKS], *more]


def leader_sentence(
    values: Mapping[str, MetricValue], what: str, lower: bool = False, write: Callable[[MetricValue], str] = interval
) -> str:
    """Say which method is best by a metric, what cannot be told apart from it, and who has no figure.

    Args:
        values: By method, ceilings left out; of those with figures by seed one is said to lead.
        what: What they are, `the hypervolume`.
        lower: Whether lower is better.
        write: How a value is written.
    """
    known = {name: value.per_seed for name, value in values.items() if value.value is not None and value.per_seed}
    sign = -1.0 if lower else 1.0
    found = lead({name: {seed: sign * each for seed, each in seeds.items()} for name, seeds in known.items()})
    if found is None:
        return ""
    best = found.leader
    said = f"{best} has the {'lowest' if lower else 'highest'} {what}, {write(values[best])}"
    lost = [name for name in values if name not in known]
    without = f" No figure of {_named(lost)}." if lost else ""
    if len(known) == 1:
        return f"{best} is the only method with a figure of {what}: {write(values[best])}.{without}"
    if not found.tied:
        return f"{said}; every other method can be told apart from it.{without}"
    if not found.behind:
        return f"No method can be told apart from the best in {what}: {best}, {write(values[best])}.{without}"
    return f"{said}; {_named(found.tied)} cannot be told apart from it, the others can.{without}"


def ranked(part: PartView, values: Mapping[str, MetricValue]) -> dict[str, MetricValue]:
    """Leave out what is no method."""
    names = {each.name for each in part.comparison.ranked}
    return {name: value for name, value in values.items() if name in names}
