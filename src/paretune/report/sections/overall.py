"""All runs of a budget together: interquartile means, chances of improvement, performance profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paretune.core.protocols import MetricRow, MetricValue
from paretune.metrics.seeds import seed_mean
from paretune.report.charts import LEGEND, Chart, Trace, figure, method_trace, plain
from paretune.report.comparison import Comparison, MethodResult
from paretune.report.measured import measured, rows_of
from paretune.report.section import Section
from paretune.report.tables import Table
from paretune.report.view import View
from paretune.report.wording import MISSING, count, interval, listing
from paretune.statistics.improvement import probability_of_improvement
from paretune.statistics.interquartile import interquartile_mean
from paretune.statistics.profiles import Profile, performance_profile

FloatArray = NDArray[np.float64]
ENOUGH_RUNS = 20  # of each method: fewer make a profile of a few steps with an interval from floor to ceiling
THRESHOLDS = 101
CAPTURED, ACHIEVED = ("captured_share", "", "captured share"), ("performance", "", "achieved utility")
ACHIEVED_J = ("performance", "J: all", "achieved J")


@dataclass(frozen=True)
class Overall:
    """All runs of one budget, of every method on every task.

    Attributes:
        budget_completions: The budget.
        tasks: Names of the tasks.
        score: What a run's score is.
        seeds: Seeds that all ranked methods finished on all tasks.
        runs: Method -> scores `[tasks, seeds]`; only methods that have one of every seed on every task.
        ceilings: Which of them are ceilings.
        left_out: Method -> why it has no runs.
        reason: Why nobody has runs; empty where somebody has.
        feedback: Class of the methods, see `Comparison`.
    """

    budget_completions: int
    tasks: tuple[str, ...]
    score: str
    seeds: tuple[int, ...]
    runs: Mapping[str, FloatArray]
    ceilings: tuple[str, ...]
    left_out: Mapping[str, str]
    reason: str = ""
    feedback: str = ""

    @property
    def title(self) -> str:
        """Name it."""
        known = f", feedback {self.feedback}" if self.feedback else ""
        return f"{self.budget_completions:,} completions, {count(len(self.tasks), 'task')}, {self.score}{known}"

    @property
    def ranked(self) -> dict[str, FloatArray]:
        """The runs of all that are methods."""
        return {name: runs for name, runs in self.runs.items() if name not in self.ceilings}


def overalls(parts: Sequence[Comparison], rows: Sequence[MetricRow]) -> list[Overall]:
    """Collect the runs of every budget that has several tasks, or several instances of one controlled task.

    Where all tasks are judged on J the score of a run is its captured share, or its achieved J where no method has a
    share on every task; else its achieved utility. A budget whose methods have no seed in common has no runs, and
    says why.

    Args:
        parts: All comparisons of the study.
        rows: All rows of its metrics.
    """
    budgets: dict[tuple[int, str], list[Comparison]] = {}
    for part in parts:
        cells = (cell for method in part.methods for cell in method.cells.values())
        if any(cell.state != "pending" for cell in cells):  # else it has not run yet
            budgets.setdefault((part.budget_completions, part.feedback), []).append(part)
    return [
        _overall(budget, members, rows)
        for (budget, _), members in budgets.items()
        if len(members) > 1 or (members[0].task.family_settings and len(members[0].seeds) > 1)
    ]


def mean_table(overall: Overall) -> Table | None:
    """Return each method's interquartile mean over tasks, averaged over seeds; None where there are no runs."""
    if not overall.runs:
        return None
    lines = []
    for name, runs in sorted(overall.runs.items(), key=lambda item: item[0] in overall.ceilings):
        value = middle_mean(runs, overall.seeds)
        lines.append((name, interval(value), runs.size, value.reason))
    title = f"Interquartile mean of a run's {overall.score}: the middle half of the tasks [95 % interval over seeds]"
    if len(overall.tasks) == 1:
        title = f"Interquartile mean of a run's {overall.score}: the middle half of the instances"
    columns = ("method", "interquartile mean", "runs", "remarks")
    kept = 4 if any(line[3] for line in lines) else 3
    return Table("overall", title, columns[:kept], tuple(line[:kept] for line in lines))


def middle_mean(runs: FloatArray, seeds: Sequence[int]) -> MetricValue:
    """Return the interquartile mean over tasks of runs `[tasks, seeds]`, and over runs where there is one task."""
    if len(runs) == 1:
        reason = "one task: its instances are the runs, and the middle half of them has no interval"
        return MetricValue(interquartile_mean(runs), reason=reason)
    return seed_mean({seed: interquartile_mean(column) for seed, column in zip(seeds, runs.T, strict=True)})


def improvement_table(overall: Overall) -> Table | None:
    """Return the chance that a run of the row's method scores higher than one of the column's; None for one method."""
    names = list(overall.ranked)
    if len(names) < 2:
        return None
    lines = []
    for first in names:
        cells = []
        for second in names:
            found = probability_of_improvement(overall.runs[first], overall.runs[second])
            value = MetricValue(found.mean, found.low, found.high)
            cells.append(MISSING if first == second else interval(value))
        lines.append((first, *cells))
    title = (
        "Probability of improvement: that a run of the row's method scores higher than a run of the column's on the "
        "same task, a tie counting half [95 % interval]"
    )
    return Table("improvement", title, ("method", *(f"against {name}" for name in names)), tuple(lines))


def profiles(overall: Overall) -> dict[str, Profile] | str:
    """Return the performance profile of each method, or why there are none."""
    ranked = overall.ranked
    fewest = min((runs.size for runs in ranked.values()), default=0)
    if fewest < ENOUGH_RUNS:
        return (
            f"Performance profiles are left out: they need {ENOUGH_RUNS} runs of each method, and there are {fewest}."
        )
    scores = np.concatenate([runs.ravel() for runs in ranked.values()])
    margin = 0.02 * (float(np.ptp(scores)) or 1.0)
    thresholds = np.linspace(scores.min() - margin, scores.max() + margin, THRESHOLDS)
    return {name: performance_profile(runs, thresholds) for name, runs in ranked.items()}


def overall_sentence(overall: Overall) -> str:
    """Say what the runs are, and what was left out and why."""
    reasons = "; ".join(f"{name} ({reason})" for name, reason in overall.left_out.items())
    lost = f" Left out: {reasons}." if reasons else ""
    if overall.reason:
        return f"There are no runs to show: {overall.reason}.{lost}"
    runs = f"{count(len(overall.tasks), 'task')} and {count(len(overall.seeds), 'seed')} that all methods finished"
    return f"A run is one method with one seed on one task, its score the {overall.score}; {runs}.{lost}"


def _overall(budget: int, parts: Sequence[Comparison], rows: Sequence[MetricRow]) -> Overall:
    methods = {method.name: method for part in parts for method in part.methods}
    tables = {metric: _scores(parts, rows, methods, metric) for metric in (CAPTURED, ACHIEVED_J, ACHIEVED)}
    ranked = [name for name, method in methods.items() if not method.ceiling]
    known = (each for each in (CAPTURED, ACHIEVED_J) if any(all(tables[each][name]) for name in ranked))
    metric = next(known, ACHIEVED_J) if all(part.task.judged_on == "J" for part in parts) else ACHIEVED
    found = {name: each for name, each in tables[metric].items() if all(each)}
    finished = {name: set.intersection(*map(set, found[name])) for name in ranked if name in found}
    seeds = tuple(sorted(set.intersection(*finished.values()))) if finished else ()
    tasks = tuple(part.task.name for part in parts)
    lacks = {name: _lacks(each, tasks, seeds, metric[2]) for name, each in tables[metric].items()}
    runs = {
        name: np.array([[values[seed] for seed in seeds] for values in each])
        for name, each in found.items()
        if seeds and not lacks[name]
    }
    return Overall(
        budget,
        tasks,
        metric[2],
        seeds,
        runs,
        tuple(name for name in runs if methods[name].ceiling),
        {name: reason for name, reason in lacks.items() if reason},
        "" if seeds else _nothing_shared(finished, metric[2]),
        parts[0].feedback,
    )


def _lacks(scores: Sequence[Mapping[int, float]], tasks: Sequence[str], seeds: Sequence[int], score: str) -> str:
    """Say which of the scores, one mapping from seeds a task, a method lacks; empty when none."""
    empty = [task for task, values in zip(tasks, scores, strict=True) if not values]
    if empty:
        return f"no {score} on {listing(empty)}"
    missing = [seed for seed in seeds if any(seed not in values for values in scores)]
    if missing:
        return f"no {score} of {_seeds(missing)} on some task"
    return ""


def _nothing_shared(finished: Mapping[str, set[int]], score: str) -> str:
    """Say why no seed counts, from those with which each method finished all tasks."""
    if not finished:
        return "no method has a score on every task"
    each = ", ".join(f"{name} has {_seeds(sorted(seeds))}" for name, seeds in finished.items())
    return f"no seed has the {score} of every method on every task ({each})"


def _seeds(seeds: Sequence[int]) -> str:
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {listing([str(seed) for seed in seeds])}" if seeds else "none"


def _scores(
    parts: Sequence[Comparison],
    rows: Sequence[MetricRow],
    methods: Mapping[str, MethodResult],
    metric: tuple[str, str, str],
) -> dict[str, list[Mapping[int, float]]]:
    by_part = [rows_of(part, rows) for part in parts]
    return {name: [measured(mine, name, *metric[:2]).per_seed for mine in by_part] for name in methods}


HOW = (
    "A run is one method with one seed on one task. A profile is the share of runs that score above each threshold; "
    "bands are 95 % Wilson intervals (over seeds, where there are several tasks), each for its threshold alone."
)


def data(view: View) -> Mapping[str, object]:
    """Say what the runs are, and draw their profiles."""
    found = overalls(view.comparisons, view.rows)
    return {
        "sentences": [
            f"{each.title}: {overall_sentence(each)}" if len(found) > 1 else overall_sentence(each) for each in found
        ],
        "charts": [chart for each in found for chart in _profiles(each, view)],
        "tables": [
            table for each in found for table in (mean_table(each), improvement_table(each)) if table is not None
        ],
        "notes": [said for each in found if isinstance(said := profiles(each), str)],
        "how": HOW,
    }


def needs(view: View) -> str:
    """Return why there is nothing to put together."""
    return "" if overalls(view.comparisons, view.rows) else "one task and no instances"


def _profiles(overall: Overall, view: View) -> list[Chart]:
    found = profiles(overall)
    if isinstance(found, str):
        return []
    traces: list[Trace] = []
    for name, each in found.items():
        look = view.looks[name]
        x = [float(value) for value in each.thresholds]
        for bound, fill in ((each.low, {}), (each.high, {"fill": "tonexty", "fillcolor": look.colour + "26"})):
            traces.append(
                method_trace(
                    name,
                    look,
                    x,
                    [float(value) for value in bound],
                    mode="lines",
                    line={"width": 0, "shape": "hv"},
                    hoverinfo="skip",
                    showlegend=False,
                    **fill,
                )
            )
        share = [float(value) for value in each.share]
        traces.append(
            method_trace(
                name,
                look,
                x,
                share,
                mode="lines",
                line={"shape": "hv"},
                hovertemplate=f"<b>{plain(name)}</b><br>above %{{x:.3f}}: %{{y:.0%}}<extra></extra>",
            )
        )
    drawn = figure(
        traces,
        f"{overall.score} of a run",
        "share of runs above, better →",
        yaxis={"range": [-0.02, 1.02]},
        showlegend=True,
        legend=LEGEND,
    )
    return [
        Chart(
            drawn,
            f"Share of runs whose {overall.score} lies above a threshold, by method",
            f"Performance profile: {overall.title}",
        )
    ]


SECTION = Section("overall", "All runs together", "All runs", data, needs, of="study")
