"""What is traded for what: mean scores, attainment over seeds; beyond three objectives, lines over all of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from paretune.core.protocols import MetricValue
from paretune.pareto.front import non_dominated
from paretune.report.charts import Chart, Switch, Trace, error_bars, figure, method_trace, plain
from paretune.report.comparison import Comparison, FloatArray, MethodResult
from paretune.report.estimates import column_mean
from paretune.report.palette import GREY
from paretune.report.section import Section
from paretune.report.tables import Table
from paretune.report.view import PartView, shown_preferences
from paretune.report.wording import count, interval, listing, number

MAX_POINTS = 4_000  # of one chart: it stays quick and the page small
MAX_TABLE_ROWS = 500
MAX_LINES = 30  # in parallel coordinates: more hide each other
MOST_PAIRS = 3  # of objectives that are drawn one by one; beyond, the first pairs and lines over all objectives
HOW = (
    "One point per method and preference: mean reward over test prompts, averaged over seeds; bars are 95 % Student-t "
    "intervals over seeds. The steps join what a method attains: a corner of the line is a pair of scores that the "
    "median seed reaches or exceeds; the thin lines are what nearly all and what few seeds attain. Hollow: a "
    "preference that no method was given in training. In parallel coordinates each line is one policy, each axis one "
    "objective within its range; lines that cross show a trade."
)


def data(part: PartView) -> Mapping[str, object]:
    """Draw the front in pairs of objectives, or over all of them."""
    comparison = part.comparison
    names = comparison.objectives
    shown = shown_preferences(
        len(comparison.labels), len(names), max(MAX_POINTS // max(len(comparison.methods), 1), len(names))
    )
    pairs = list(itertools.combinations(range(len(names)), 2))
    charts = [_pair(part, a, b, shown) for a, b in pairs[:MOST_PAIRS]]
    if len(names) > 3:
        charts.insert(0, parallel(part))
    notice = (
        ""
        if len(shown) == len(comparison.labels)
        else (f"Showing {len(shown):,} of {len(comparison.labels):,} preferences, corners first; the tables hold all.")
    )
    return {
        "sentences": [_sentence(comparison), notice],
        "charts": charts,
        "legend": [(each.name, each.family) for each in comparison.methods],
        "tables": [_table(comparison)],
        "how": HOW,
    }


def needs(part: PartView) -> str:
    """Return why there is no front."""
    if len(part.comparison.objectives) < 2:
        return "A front needs two objectives; this task has one."
    return "" if any(each.done for each in part.comparison.methods) else "No method has finished a cell yet."


def _pair(part: PartView, a: int, b: int, shown: Sequence[int]) -> Chart:
    comparison = part.comparison
    corner, names = comparison.task.reference_point[[a, b]], comparison.objectives
    traces: list[Trace] = []
    heads: list[MetricValue] = []
    for method in comparison.methods:
        found = _points(comparison, method, shown)
        heads += [scores[axis] for _, scores in found for axis in (a, b)]
        traces += _method(part, method, found, a, b)
    base = [column_mean(each, comparison.seeds) for each in comparison.base_scores.T]
    extra: list[Trace] = []
    if all(each.value is not None for each in base):
        extra.append(_mark("base model", base[a].value, base[b].value, "star", [interval(each) for each in base]))
    extra.append(_mark("reference point", float(corner[0]), float(corner[1]), "x-thin", []))
    ranges = {
        axis: _range([each for scores in [heads[place::2], base[k : k + 1]] for each in scores])
        for place, (axis, k) in enumerate((("xaxis", a), ("yaxis", b)))
    }
    whole = {
        f"{axis}.range": [min(ends[0], float(end) - 0.05 * (ends[1] - float(end))), ends[1]]
        for (axis, ends), end in zip(ranges.items(), corner, strict=True)
    }
    drawn = figure(
        [*traces, *extra],
        f"{plain(names[a])}: mean reward, better →",
        f"{plain(names[b])}: mean reward, better →",
        xaxis={"range": ranges["xaxis"]},
        yaxis={"range": ranges["yaxis"]},
    )
    few = len(comparison.methods) * len(shown) <= 60
    bars = [{f"error_{axis}.visible": each for axis in "xy"} for each in (True, False)]
    return Chart(
        drawn,
        f"Mean reward on {names[a]} (across) and {names[b]} (up) for {listing([x.name for x in comparison.methods])}, "
        "with the base model and the reference point. The table below holds the same numbers.",
        switches=(
            Switch("intervals", "points", bars[0], bars[1], ticked=few),
            Switch("spread of seeds", "band", {"visible": True}, {"visible": False}),
            Switch(
                "down to the reference point",
                "",
                whole,
                {f"{axis}.range": ends for axis, ends in ranges.items()},
                layout=True,
            ),
        ),
    )


def _points(comparison: Comparison, method: MethodResult, shown: Sequence[int]) -> list[tuple[int, list[MetricValue]]]:
    found = [(column, [column_mean(each, comparison.seeds) for each in method.scores[:, column].T]) for column in shown]
    return [(column, scores) for column, scores in found if all(each.value is not None for each in scores)]


def _method(
    part: PartView, method: MethodResult, found: Sequence[tuple[int, list[MetricValue]]], a: int, b: int
) -> list[Trace]:
    """Draw a method's points, and the steps that its seeds attain."""
    comparison, look = part.comparison, part.view.looks[method.name]
    if not found:
        return []
    few = len(comparison.methods) * len(found) <= 60
    unseen = [bool(comparison.task.unseen[column]) for column, _ in found]
    texts = [_hover(comparison, method, column, scores) for column, scores in found]
    values = [[scores[axis] for _, scores in found] for axis in (a, b)]
    points = method_trace(
        method.name,
        look,
        [each.value for each in values[0]],
        [each.value for each in values[1]],
        meta={"kind": "points"},
        marker={"symbol": [look.marker + ("-open" if each else "") for each in unseen]},
        text=texts,
        hovertemplate="%{text}<extra></extra>",
        error_x=_thin_bars(values[0], look.colour, few),
        error_y=_thin_bars(values[1], look.colour, few),
    )
    corner = comparison.task.reference_point[[a, b]]
    seeds = [scores[np.isfinite(scores).all(axis=1)] for scores in method.scores[:, :, [a, b]]]
    seeds = [each for each in seeds if len(each)]
    steps = []
    for share, kind, width in ((0.5, "median", 1.5), (0.9, "band", 0.8), (0.1, "band", 0.8)):
        line = attained(seeds, share, corner)
        if len(line) and (kind == "median" or len(seeds) > 2):
            steps.append(
                method_trace(
                    method.name,
                    look,
                    line[:, 0].tolist(),
                    line[:, 1].tolist(),
                    mode="lines",
                    hoverinfo="skip",
                    meta={"kind": kind},
                    opacity=0.75,
                    visible=kind == "median",
                    line={"width": width},
                )
            )
    return [*steps, points]


def _thin_bars(values: Sequence[MetricValue], colour: str, visible: bool) -> Trace:
    return {**error_bars(values, colour), "visible": visible, "thickness": 1}


def attained(seeds: Sequence[FloatArray], share: float, corner: FloatArray) -> FloatArray:
    """Return the staircase that a share of seeds attains, `[M, 2]` from the lower right up, to be joined by lines.

    Args:
        seeds: Points of each seed, `[N, 2]`.
        share: Of the seeds.
        corner: The reference point, where the line ends, `[2]`.
    """
    from paretune.pareto.attainment import attainment_surface

    above = [points[(points > corner).all(axis=1)] for points in seeds]
    surface = attainment_surface(above, share, corner) if any(len(each) for each in above) else np.zeros((0, 2))
    return np.asarray(surface)


def _hover(comparison: Comparison, method: MethodResult, column: int, scores: Sequence[MetricValue]) -> str:
    unseen = " (unseen)" if comparison.task.unseen[column] else ""
    utility = column_mean(method.utilities[:, column], comparison.seeds)
    lines = [f"<b>{plain(method.name)}</b>, {plain(comparison.labels[column])}{unseen}"]
    lines += [f"{plain(name)}: {interval(each)}" for name, each in zip(comparison.objectives, scores, strict=True)]
    kl = method.kl[:, column]
    mean_kl = float(np.nanmean(kl)) if np.isfinite(kl).any() else None
    lines.append(f"utility: {interval(utility)}; KL {number(mean_kl)} nats; {count(len(utility.per_seed), 'seed')}")
    return "<br>".join([*lines, f"answer: {plain(method.answers[column])}"])


def _mark(name: str, x: float | None, y: float | None, symbol: str, lines: Sequence[str]) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers+text",
        "name": name,
        "x": [x],
        "y": [y],
        "text": [name],
        "textposition": "bottom center" if lines else "top right",
        "textfont": {"size": 12},
        "marker": {
            "symbol": symbol,
            "size": 14 if lines else 10,
            "color": GREY,
            "line": {"width": 2, "color": GREY},
        },
        "hovertemplate": "<br>".join([f"<b>{name}</b>", *lines]) + "<extra></extra>",
    }


def _range(values: Sequence[MetricValue]) -> list[float]:
    """Return an axis that holds all means, and of intervals half a span of them: a wide one must not hide the rest."""
    means = [each.value for each in values if each.value is not None]
    if not means:
        return [0.0, 1.0]
    low, high = min(means), max(means)
    span = high - low or 0.1
    ends = [end for each in values for end in (each.low, each.high) if end is not None]
    bounds = [min(max(end, low - span / 2), high + span / 2) for end in ends]
    lowest, highest = min([low, *bounds]), max([high, *bounds])
    room = 0.06 * (highest - lowest or 0.1)
    return [lowest - room, highest + room]


def parallel(part: PartView) -> Chart:
    """Draw policies as lines over all objectives, each within the range that its task declares."""
    comparison = part.comparison
    ranges = comparison.ends[: len(comparison.objectives)]
    wanted = _centre_first(comparison.task.preferences)
    lines = [(method, column) for column in wanted for method in comparison.ranked if method.done][:MAX_LINES]
    traces = []
    for method, column in lines:
        scores = [column_mean(each, comparison.seeds).value for each in method.scores[:, column].T]
        heights = [
            None if each is None else (each - low) / (high - low)
            for each, (low, high) in zip(scores, ranges, strict=True)
        ]
        traces.append(
            method_trace(
                method.name,
                part.view.looks[method.name],
                [plain(name) for name in comparison.objectives],
                heights,
                mode="lines+markers",
                marker={"size": 6},
                line={"width": 1.5},
                opacity=0.8,
                text=[number(each) for each in scores],
                hovertemplate=f"<b>{plain(method.name)}</b>, {plain(comparison.labels[column])}<br>"
                "%{x}: %{text}<extra></extra>",
            )
        )
    left = len(comparison.ranked) * len(wanted) - len(lines)
    return Chart(
        figure(traces, "", "share of the objective's range, better →", yaxis={"rangemode": "tozero"}),
        f"Scores of {count(len(lines), 'policy', 'policies')} on {listing(comparison.objectives)}, one line a policy",
        "All objectives at once",
        f"The policies for equal weights first, then those for other preferences; {left:,} more stand in the table."
        if left > 0
        else "",
    )


def _centre_first(preferences: FloatArray) -> list[int]:
    distance = np.abs(preferences - 1 / preferences.shape[1]).sum(axis=1)
    return [int(each) for each in np.argsort(distance, kind="stable")]


def _sentence(comparison: Comparison) -> str:
    owners, points = [], []
    for method in comparison.ranked:
        for scores in _mean_scores(comparison, method):
            owners.append(method.name)
            points.append(scores)
    if not points:
        return "No method has finished a cell yet, so there are no points."
    kept = [owner for owner, keep in zip(owners, non_dominated(np.array(points)), strict=True) if keep]
    shares = [
        f"{method.name} {kept.count(method.name)} of {owners.count(method.name)}"
        for method in comparison.ranked
        if method.name in owners
    ]
    return (
        f"Of {count(len(points), 'mean point')} of different policies, {len(kept)} {'is' if len(kept) == 1 else 'are'} "
        f"non-dominated in all {count(len(comparison.objectives), 'objective')} together: {listing(shares)}. These "
        "are means; the intervals say how far chance may have moved them."
    )


def _mean_scores(comparison: Comparison, method: MethodResult) -> list[list[float]]:
    """Return mean scores over seeds, of each policy once: several preferences may be answered by the same."""
    found: dict[tuple[str | None, ...], list[float]] = {}
    for column, preference in enumerate(comparison.task.preferences):
        means = [column_mean(each, comparison.seeds).value for each in method.scores[:, column].T]
        present = [each for each in means if each is not None]
        if len(present) == len(means):
            answers = (method.evaluation(seed, preference) for seed in comparison.seeds)
            found.setdefault(tuple(None if each is None else each.identity for each in answers), present)
    return list(found.values())


def _table(comparison: Comparison) -> Table:
    room = max(MAX_TABLE_ROWS // max(len(comparison.methods), 1), 1)
    shown = shown_preferences(len(comparison.labels), len(comparison.objectives), room)
    rows: list[tuple[str | int, ...]] = []
    if comparison.references:
        base = [interval(column_mean(each, comparison.seeds)) for each in comparison.base_scores.T]
        rows.append(("base model", "", "reference", *base, "", len(comparison.references)))
    for method in comparison.methods:
        for column in shown:
            values = [column_mean(each, comparison.seeds) for each in method.scores[:, column].T]
            utility = column_mean(method.utilities[:, column], comparison.seeds)
            label = comparison.labels[column] + (" (unseen)" if comparison.task.unseen[column] else "")
            texts = (*(interval(each) for each in values), interval(utility))
            rows.append((method.name, label, method.answers[column], *texts, len(utility.per_seed)))
    title = "Mean reward [95 % Student-t interval over seeds]"
    columns = ("method", "preference", "answer", *comparison.objectives, "utility", "seeds")
    return Table("front", title, columns, tuple(rows))


SECTION = Section("front", "What is traded for what?", "Trade-offs", data, needs, "front.html.jinja")
