"""Performance: what users of each preference get, beside the base model; the audit; the pass ratio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from paretune.core.protocols import MetricValue
from paretune.report.charts import ROW_HEIGHT, Chart, heat
from paretune.report.estimates import column_mean
from paretune.report.findings import lead
from paretune.report.heat_map import BASE, baselines, heat_map, separable
from paretune.report.metric_parts import dot_chart, leader_sentence, metric_table, ranked, remarks, unmeasured
from paretune.report.section import Section
from paretune.report.tables import Table
from paretune.report.view import PartView, shown_preferences
from paretune.report.wording import capital, interval, listing, number

HOW = (
    "Utility is the mean reward weighted by the preference, from the policy that the method itself answers it with. "
    "Differences are paired by seed, with 95 % Student-t intervals; a figure in brackets may be 0. J is utility less "
    "beta times KL. Regret is what is missing to the best policy known. The audit is scored and never trained on: a "
    "method that gains utility and loses the audit has gamed the rewards."
)
MAX_COLUMNS = 40  # preferences of a heat map
MOST_WRITTEN = 12  # columns of a heat map whose fields have room for figures
DETAILS = ("preference: ", "kl: ")  # one row a preference: these stand in tables.csv
WORST = "audit change, worst: "
GAMED = ("audit", "over-optimisation", "length")  # rows that say whether rewards were gamed
METRIC, PASS, SHARE, KINDS = "performance", "pass_ratio", "captured_share", "own_utility"


def data(part: PartView) -> Mapping[str, object]:
    """Show what is judged, by method and by preference."""
    noun, values = part.judged
    mine = {name: values[name] for name in (each.name for each in part.comparison.methods) if name in values}
    labels = [each for each in part.labels(METRIC) if not each.startswith(DETAILS) or each == "kl: all"]
    gamed = [each for each in labels if each.startswith(GAMED) and "," not in each.removeprefix(WORST)]
    labels = [each for each in labels if not each.startswith(GAMED)]
    titles = {
        SHARE: "Captured share of the possible gain in J",
        PASS: "Pass ratio: share of completions that reach their thresholds",
        KINDS: "Utility by kind of user",
    }
    tables = [metric_table(part, METRIC, labels, "Performance [95 % interval over seeds]")]
    tables += [metric_table(part, METRIC, gamed, "Audit, length and over-optimisation [95 % interval over seeds]")]
    tables += [
        metric_table(part, name, part.labels(name), title) for name, title in titles.items() if _known(part, name)
    ]
    passed = "share good enough in all, better \u2192"
    return {
        "sentences": [
            leader_sentence(ranked(part, mine), noun),
            leader_sentence(ranked(part, part.values(PASS)), "pass ratio"),
            _worst(part),
            *(_audit_sentence(part, name) for name in part.comparison.audit),
        ],
        "charts": [
            *dot_chart(part, mine, capital(noun), f"{noun}, better \u2192"),
            *dot_chart(part, part.values(PASS), "Pass ratio", passed),
            *_differences(part),
            *(_audit(part, index) for index in range(len(part.comparison.audit))),
        ],
        "tables": [*tables, by_preference(part)],
        "notes": [
            *remarks(part, METRIC, [*labels, *gamed]),
            *(each for name in (PASS, SHARE) for each in remarks(part, name, part.labels(name)[:1])),
        ],
        "how": HOW,
    }


def _known(part: PartView, metric: str) -> bool:
    return any(each.value is not None for label in part.labels(metric) for each in part.values(metric, label).values())


def _worst(part: PartView) -> str:
    """Say how the user fares whom each method serves worst: the share of the possible gain on listed tasks."""
    noun = "captured share" if part.comparison.task.listed else "gain over the base model"
    return leader_sentence(ranked(part, part.values(METRIC, "worst preference")), f"{noun} of the user served worst")


def _audit_sentence(part: PartView, name: str) -> str:
    """Say which methods lose an audit objective at some preference, whose interval lies below 0, and who loses most."""
    values = ranked(part, part.values(METRIC, f"{WORST}{name}"))
    known = {method: value for method, value in values.items() if value.value is not None}
    if not known:
        return ""
    losing = {method: each for method, each in known.items() if each.high is not None and each.high < 0}
    found = lead({method: {seed: -gap for seed, gap in each.per_seed.items()} for method, each in losing.items()})
    if found is None:
        return f"Audit: no method is shown to lose {name} for any user; the intervals stand in the table."
    lowest = losing[found.leader]
    where = f" ({lowest.reason})" if lowest.reason else ""
    said = f"Audit: {found.leader} loses most {name} for one user, {interval(lowest, signed=True)}{where}"
    tied = f"; {listing(found.tied)} cannot be told apart from it" if found.tied else ""
    rest = f"; {listing(found.behind)} {'lose' if len(found.behind) > 1 else 'loses'} less" if found.behind else ""
    return f"{said}{tied}{rest}. No other method is shown to lose any."


def _differences(part: PartView) -> list[Chart]:
    """Draw differences to the base model, and to the method of the highest average."""
    comparison = part.comparison
    known = baselines(comparison)
    if not known:
        return []
    best = part.best([each.name for each in comparison.ranked])
    shown = shown_preferences(len(comparison.labels), len(comparison.objectives), MAX_COLUMNS)
    against = [known[0], *([best] if best and best != known[0] else [])]
    return [_heat(part, name, shown) for name in against]


def _heat(part: PartView, baseline: str, shown: Sequence[int]) -> Chart:
    comparison = part.comparison
    found = heat_map(comparison, baseline, shown)
    rows = [[*row, average] for row, average in zip(found.differences, found.averages, strict=True)]
    columns = [
        *(comparison.labels[column] + (" (unseen)" if comparison.task.unseen[column] else "") for column in shown),
        "average",
    ]
    return _chart(
        rows,
        list(found.methods),
        columns,
        f"Difference to {BASE if baseline == BASE else baseline} in {comparison.task.judged_on}, by preference",
    )


def _chart(rows: Sequence[Sequence[MetricValue]], methods: Sequence[str], columns: Sequence[str], title: str) -> Chart:
    texts = [
        [
            number(each.value, signed=True)
            if separable(each) or each.value is None
            else f"({number(each.value, signed=True)})"
            for each in row
        ]
        for row in rows
    ]
    drawn = heat(
        [[each.value for each in row] for row in rows], methods, [each.replace(", ", "\n") for each in columns], texts
    )
    drawn["data"][0]["customdata"] = [[interval(each, signed=True) for each in row] for row in rows]
    drawn["data"][0]["hovertemplate"] = "%{y}, %{x}: %{customdata}<extra></extra>"
    many = len(columns) > MOST_WRITTEN
    if many:
        drawn["data"][0].pop("texttemplate")
    else:
        drawn["layout"]["xaxis"]["tickangle"] = 0
    note = "Hover for the figures." if many else "In brackets: may be 0, or no interval."
    height = 170 + ROW_HEIGHT * len(methods)
    return Chart(drawn, f"{title}; the table below holds the numbers", title, note, height, wide=True)


def _audit(part: PartView, index: int) -> Chart:
    """Draw what each method changed in an audit objective, by preference."""
    comparison = part.comparison
    shown = shown_preferences(len(comparison.labels), len(comparison.objectives), MAX_COLUMNS)
    base = comparison.base_audit_scores[:, index]
    rows = [
        [column_mean(each.audit_scores[:, column, index] - base, comparison.seeds) for column in shown]
        for each in comparison.methods
    ]
    return _chart(
        rows,
        [each.name for each in comparison.methods],
        [comparison.labels[column] for column in shown],
        f"Audit: change of {comparison.audit[index]}, which nothing trained for, by preference",
    )


def by_preference(part: PartView) -> Table:
    """Return what every method reaches for every preference shown, and its audit."""
    comparison = part.comparison
    shown = shown_preferences(
        len(comparison.labels), len(comparison.objectives), max(400 // max(len(comparison.methods), 1), 1)
    )
    lines = []
    for method in comparison.methods:
        for column in shown:
            audits = [
                interval(column_mean(method.audit_scores[:, column, k], comparison.seeds))
                for k in range(len(comparison.audit))
            ]
            lines.append(
                (
                    method.name,
                    comparison.labels[column],
                    interval(column_mean(method.judged[:, column], comparison.seeds)),
                    *audits,
                )
            )
    columns = ("method", "preference", comparison.task.judged_on, *(f"{name} (audit)" for name in comparison.audit))
    return Table(
        "by_preference", "By preference, with the mean of every audit [95 % interval over seeds]", columns, tuple(lines)
    )


SECTION = Section(
    "performance", "How well are users served? (1 performance)", "1 Performance", data, unmeasured(METRIC)
)
