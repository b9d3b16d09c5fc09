"""How methods do on objectives that compete and on objectives that agree: all tasks of a study on one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from paretune.metrics.seeds import seed_mean
from paretune.report.charts import Chart, Curve, curves
from paretune.report.comparison import Comparison
from paretune.report.findings import lead
from paretune.report.section import Section
from paretune.report.tables import Table
from paretune.report.view import PartView, View
from paretune.report.wording import capital, count, interval, listing, number
from paretune.statistics.interaction import Interaction, interaction

LEVEL = 0.05
HOW = (
    "Across: the mean rank correlation of the rewards of every two objectives within prompts, measured on completions "
    "of the base model. Up: the gain over the base model in what the task is judged on, as a share of the gain of the "
    "best method there, so that tasks with much to gain and with little stand side by side; 1 is the best method of "
    "the task. Intervals are Student-t over seeds. The test asks whether methods differ by the same amounts on every "
    "task: values are taken relative to the mean of the methods, and to what a seed does to each method on all tasks; "
    "then the tasks of each seed are permuted, 9,999 times. Tasks share a seed where it draws the same model and "
    "prompts for both, or where both train one base model. Methods that lack a task take no part in it, nor do "
    "seeds that one of the others lacks; tasks on which what users want depends on the prompt are left out. The best "
    "method's gain is taken as exact, so intervals of shares are somewhat too narrow. Where every seed is another "
    "instance of a task, its correlation is that of the first."
)


@dataclass(frozen=True)
class Place:
    """One task among others.

    Attributes:
        part: Its methods.
        correlation: Mean measured correlation of its objectives.
        gains: Method -> seed -> gain over the base model as a share of the best method's mean gain.
    """

    part: Comparison
    correlation: float
    gains: Mapping[str, Mapping[int, float]]


def data(view: View) -> Mapping[str, object]:
    """Draw gains against measured correlation, and test whether the order of methods depends on it."""
    budgets = places_of(view)
    tables = [_table(budget, places) for budget, places in budgets.items()]
    return {
        "sentences": [_sentence(budget, places) for budget, places in budgets.items()],
        "charts": [_chart(budget, places, view) for budget, places in budgets.items()],
        "tables": tables,
        "notes": [],
        "how": HOW,
    }


def needs(view: View) -> str:
    """Return why tasks cannot be compared."""
    return "" if places_of(view) else "fewer than two tasks whose relations were measured"


def places_of(view: View) -> dict[int, list[Place]]:
    """Return the tasks of every budget that has two or more whose relations were measured, by rising correlation."""
    found: dict[int, list[Place]] = {}
    for part in view.parts:
        correlation, gains = measured_correlation(part), relative_gains(part.comparison)
        if correlation is not None and gains and not part.comparison.feedback:
            budget = part.comparison.budget_completions
            found.setdefault(budget, []).append(Place(part.comparison, correlation, gains))
    return {
        budget: sorted(places, key=lambda place: place.correlation)
        for budget, places in found.items()
        if len(places) > 1
    }


def measured_correlation(part: PartView) -> float | None:
    """Return the mean correlation of every two objectives, of the first seed where it was measured."""
    if part.relations is None:
        return None
    values = np.array(part.relations[1]["rewards"]["values"], float)  # None becomes NaN
    pairs = values[np.triu_indices(len(values), 1)]
    return float(np.nanmean(pairs)) if np.isfinite(pairs).any() else None


def relative_gains(part: Comparison) -> dict[str, dict[int, float]]:
    """Return gains over the base model, mean over preferences, as shares of the best method's; empty without one."""
    gains = {}
    for method in part.ranked:
        values = (method.judged - part.base_utilities).mean(axis=1)
        gains[method.name] = {
            seed: float(each) for seed, each in zip(part.seeds, values, strict=True) if np.isfinite(each)
        }
    means = [float(np.mean(list(each.values()))) for each in gains.values() if each]
    best = max(means, default=0.0)
    if best <= 0:
        return {}
    return {name: {seed: each / best for seed, each in by_seed.items()} for name, by_seed in gains.items() if by_seed}


def interaction_of(places: Sequence[Place]) -> tuple[Interaction, list[str]]:
    """Test the interaction of method and task over the methods that every task has; return these, too.

    Seeds of generated tasks are blocks: one seed draws model and prompts for all of them. Those of other tasks are
    trainings of one base model, and blocks of the tasks that have that model.
    """
    names = [name for name in places[0].gains if all(name in place.gains for place in places)]
    kinds, blocks = [], []
    for place in places:
        seeds = set.intersection(*(set(place.gains[name]) for name in names)) if names else set()
        kinds.append(
            np.array([[place.gains[name][seed] for name in names] for seed in sorted(seeds)]).reshape(-1, len(names))
        )
        source = "generated" if place.part.task.family_settings else place.part.task.model
        blocks.append([(source, seed) for seed in sorted(seeds)])
    if any(not len(each) for each in kinds):
        return Interaction(None, None, "no seed has all methods on some task"), names
    return interaction(kinds, blocks), names


def _sentence(budget: int, places: Sequence[Place]) -> str:
    found, names = interaction_of(places)
    head = f"{budget:,} completions, {count(len(places), 'task')}, {count(len(names), 'method')}: "
    if found.p_value is None or found.share is None:
        return f"{head}whether differences between methods depend on the task cannot be tested ({found.reason})."
    if found.least is not None and found.least > LEVEL:
        few = f"so few tasks and seeds give no p-value below {found.least:.3f}"
        return f"{head}whether differences between methods depend on the task cannot be tested ({few})."
    clear = found.p_value < LEVEL
    alone = listing([places[place].part.task.name for place in found.left_out])
    apart = f" Not tested, as no other task has its seeds: {alone}." * bool(alone)
    leaders = "; ".join(_leader(place) for place in places)
    verdict = (
        "differences between methods depend on the task"
        if clear
        else "nothing shows that differences between methods depend on the task"
    )
    return (
        f"{head}{verdict} (tasks explain {number(found.share)} of how methods differ within instances, p = "
        f"{found.p_value:.4f}). {capital(leaders)}.{apart}"
    )


def _leader(place: Place) -> str:
    """Say who leads on a task, and how many cannot be told apart from it."""
    task, found = place.part.task.name, lead(place.gains)
    if found is None or not (found.tied or found.behind):
        return f"on {task} there is one method only"
    if not found.behind:
        return f"on {task} nobody can be told apart from the best"
    tied = f", {count(len(found.tied), 'method')} tied with it" if found.tied else ", alone"
    return f"on {task} {found.leader} leads{tied}"


def _chart(budget: int, places: Sequence[Place], view: View) -> Chart:
    names = list(dict.fromkeys(name for place in places for name in place.gains))
    lines = []
    for name in names:
        mine = [place for place in places if name in place.gains]
        lines.append(
            Curve(name, [place.correlation for place in mine], [seed_mean(place.gains[name]) for place in mine])
        )
    named = [
        {
            "x": place.correlation, "y": 1.0, "yref": "paper", "text": place.part.task.name, "showarrow": False,
            "textangle": -90, "yanchor": "top", "xanchor": "right", "font": {"size": 11},
        }
        for place in places
    ]  # fmt: skip
    drawn = curves(
        lines, view.looks, "measured correlation of the objectives: competing \u2190 \u2192 agreeing",
        "share of the best method's gain, better \u2192", annotations=named,
    )  # fmt: skip
    title = f"Method by relation, {budget:,} completions"
    return Chart(
        drawn,
        f"{title}: gain against measured correlation, one line a method; the table holds the numbers",
        title,
        height=520,
        wide=True,
    )


def _table(budget: int, places: Sequence[Place]) -> Table:
    names = list(dict.fromkeys(name for place in places for name in place.gains))
    lines = [
        (name, *(interval(seed_mean(place.gains[name])) if name in place.gains else "\u2013" for place in places))
        for name in names
    ]
    heads = [f"{place.part.task.name} (correlation {number(place.correlation)})" for place in places]
    title = (
        f"Gain over the base model as a share of the best method's, {budget:,} completions [95 % interval over seeds]"
    )
    return Table("across", title, ("method", *heads), tuple(lines))


SECTION = Section(
    "across",
    "Correlated or competing: does the best method change? (shares of its gain)",
    "By relation",
    data,
    needs,
    of="study",
)
