"""Training efficiency: what it cost, against what it reached; budgets of a task on one chart."""

from __future__ import annotations

from collections.abc import Mapping

from paretune.core.protocols import MetricValue
from paretune.report.charts import Chart, Curve, Trace, curves, error_bars, figure, method_trace, plain
from paretune.report.costs import spent_seconds
from paretune.report.measured import judged
from paretune.report.metric_parts import metric_table, remarks, unmeasured
from paretune.report.section import Section
from paretune.report.view import PartView
from paretune.report.wording import count, interval, listing, number

METRIC = "training_efficiency"
DETAILS = {f"chain: {each}" for each in ("prompts", "tokens", "reward_calls", "flops")}  # these stand in tables.csv
HOW = (
    "Everything a method needed is charged to it: experts, selection and search; testing is not. A stage that several "
    "methods share is trained once and charged in full to each. The longest chain is the time left if everything that "
    "can run at once does. Work repeated after a kill is listed apart."
)


def data(part: PartView) -> Mapping[str, object]:
    """Draw what is judged against completions and seconds, and over the budgets of the task."""
    labels = [each for each in part.labels(METRIC) if each not in DETAILS]
    return {
        "sentences": [_sentence(part)],
        "charts": [*_against(part), *_budgets(part)],
        "tables": [metric_table(part, METRIC, labels, "Training cost, mean over finished seeds")],
        "notes": remarks(part, METRIC, labels),
        "how": HOW,
    }


def _sentence(part: PartView) -> str:
    spent = [
        each
        for each in part.costs
        if each.completions.value is not None and not part.comparison.method(each.method).ceiling
    ]
    if not spent:
        return "No finished cell has a ledger yet."
    timed = sorted(
        (each for each in spent if each.seconds_sum.value is not None), key=lambda each: each.seconds_sum.value or 0.0
    )
    amounts = sorted({round(each.completions.value or 0.0) for each in spent})
    made = f"{amounts[0]:,}" if len(amounts) == 1 else f"{amounts[0]:,} to {amounts[-1]:,}"
    ends = [timed[0], timed[-1]] if len(timed) > 1 else timed
    took = listing([f"{each.method} {spent_seconds(each.seconds_sum)}" for each in ends], "to")
    return (
        f"Every cell might spend {part.comparison.budget_completions:,} completions and spent {made}. "
        f"{f'Time to train, a seed: {took}.' if took else ''}"
    ).strip()


def _against(part: PartView) -> list[Chart]:
    """Draw the score against cost: filled the sum, hollow the longest chain."""
    noun, values = part.judged
    charts = []
    for title, unit, series in (
        ("Completions sampled to train", "completions, cheaper ←", (("completions", ""),)),
        (
            "Seconds to train",
            "seconds, cheaper ←; filled: all added up, hollow: longest chain",
            (("seconds_sum", ""), ("seconds_chain", "-open")),
        ),
    ):
        traces: list[Trace] = []
        said = []
        for cost in part.costs:
            value = values.get(cost.method, MetricValue(None))
            if value.value is None or part.comparison.method(cost.method).ceiling:
                continue
            look = part.view.looks[cost.method]
            spent = [(getattr(cost, name).value, look.marker + suffix) for name, suffix in series]
            spent = [each for each in spent if each[0] is not None]
            said += [f"{cost.method} {number(spent[0][0])}"] if spent else []
            traces.append(
                method_trace(
                    cost.method,
                    look,
                    [each for each, _ in spent],
                    [value.value] * len(spent),
                    mode="lines+markers",
                    marker={"symbol": [shape for _, shape in spent], "size": 12},
                    line={"width": 1.5, "dash": "dot"},
                    error_y=error_bars([value] * len(spent), look.colour),
                    hovertemplate=f"<b>{plain(cost.method)}</b><br>%{{x:,.0f}}<br>{interval(value)}<extra></extra>",
                )
            )
        drawn = figure(traces, unit, f"{noun}, better →", xaxis={"rangemode": "tozero"})
        charts.append(Chart(drawn, f"{noun} against {unit}: {listing(said)}", title))
    return charts if any(chart.figure["data"] for chart in charts) else []


def _budgets(part: PartView) -> list[Chart]:
    """Draw the score over the budgets of the task; nothing with a single one."""
    mine = part.comparison
    others = sorted(
        (each for each in part.view.comparisons if (each.task.name, each.feedback) == (mine.task.name, mine.feedback)),
        key=lambda each: each.budget_completions,
    )
    if len(others) < 2:
        return []
    found = [(each.budget_completions, judged(each, part.view.rows)) for each in others]
    noun = found[0][1][0]
    lines = []
    for method in mine.ranked:
        points = [
            (budget, values[method.name])
            for budget, (_, values) in found
            if values.get(method.name, MetricValue(None)).value is not None
        ]
        lines.append(Curve(method.name, [x for x, _ in points], [value for _, value in points]))
    drawn = curves(lines, part.view.looks, "completions a cell might spend", f"{noun}, better →", xaxis={"type": "log"})
    return [
        Chart(
            drawn,
            f"{noun} by budget, one line a method",
            f"Quality against cost, {count(len(others), 'budget')}",
            "Logarithmic axis across.",
        )
    ]


SECTION = Section("training", "What did training cost? (3 training efficiency)", "3 Training", data, unmeasured(METRIC))
