"""What the page answers a reader with a preference: who serves it best, is that separable, what is lost and spent."""

from __future__ import annotations

import numpy as np

from paretune.core.protocols import MetricValue
from paretune.report.comparison import Comparison, FloatArray, MethodResult
from paretune.report.costs import spent_seconds
from paretune.report.estimates import column_mean, difference
from paretune.report.findings import Lead, lead
from paretune.report.view import PartView
from paretune.report.wording import MANY, interval, listing, number

STEP = 0.05  # of weight: a preference that has less more of an objective is no answer to "more of it"


def answer_of(part: PartView, column: int) -> tuple[str, str]:
    """Say for one measured preference who serves it best, and who passes most often where that is another.

    Args:
        part: The task and budget.
        column: Which of its preferences.

    Returns:
        The method, empty where none has a result; and the sentences.
    """
    comparison = part.comparison
    values = {each.name: column_mean(each.judged[:, column], comparison.seeds) for each in comparison.ranked}
    found = lead({name: value.per_seed for name, value in values.items()})
    if found is None:
        return "", "No method has a result for this preference."
    return found.leader, f"{_who(comparison.task.judged_on, values, found)} {_pass_line(part, found)}".strip()


def _who(noun: str, values: dict[str, MetricValue], found: Lead) -> str:
    best = f"{found.leader} has the highest {noun}, {interval(values[found.leader])}"
    if len([each for each in values.values() if each.value is not None]) == 1:
        return f"{found.leader} is the only method with a result: {noun} {interval(values[found.leader])}."
    if found.tied and all(difference(values[name], values[found.leader]).low is None for name in found.tied):
        return f"{best}. Too few seeds to say whether that is chance."
    tied = listing([f"{name} ({interval(values[name])})" for name in found.tied][:MANY])
    more = f" and {len(found.tied) - MANY} more" if len(found.tied) > MANY else ""
    if not found.tied:
        return f"{best}, and every other method can be told apart from it."
    return f"{best}. That is not separable from {tied}{more}: the difference, paired by seed, may be 0."


def cost_line(part: PartView, name: str) -> str:
    """Say what a method cost to train for all preferences, and how fast it is."""
    cost = next(each for each in part.costs if each.method == name)
    if cost.completions.value is None:
        return ""
    line = (
        f"{cost.method} cost {number(cost.completions.value)} completions and {spent_seconds(cost.seconds_sum)} of "
        "training a seed, for all preferences together"
    )
    ratio = cost.speed_ratio
    if ratio.value is None:
        return f"{line}."
    speed = f"times the base model's speed, {cost.timed}: {interval(ratio)}"
    alike = ratio.low is not None and ratio.high is not None and ratio.low <= 1 <= ratio.high
    word = "as fast as the base model, as far as can be told" if alike else "slower" if ratio.value < 1 else "faster"
    return f"{line}; it decodes {word} ({speed})."


def _everything(method: MethodResult) -> FloatArray:
    """Return scores of objectives and audit, `[S, P, K + A]`."""
    return np.concatenate([method.scores, method.audit_scores], axis=2)


def names_of(comparison: Comparison) -> list[str]:
    """Name the objectives and the audit, which says so."""
    return [*comparison.objectives, *(f"{name} (audit)" for name in comparison.audit)]


def more_of(points: FloatArray, column: int, objective: int) -> int | None:
    """Return the nearest of some preferences `[P, K]` that weighs an objective more; None where there is none."""
    more = np.flatnonzero(points[:, objective] >= points[column, objective] + STEP)
    if not len(more):
        return None
    towards = points[column] + STEP * (np.eye(points.shape[1])[objective] - points[column])
    return int(more[np.argmin(np.abs(points[more] - towards).sum(axis=1))])


def _pass_line(part: PartView, found: Lead) -> str:
    """Say who passes most often, over all preferences, where that is not the leader or one tied with it."""
    passed = {each.name: part.values("pass_ratio").get(each.name, MetricValue(None)) for each in part.comparison.ranked}
    best = lead({name: value.per_seed for name, value in passed.items()})
    mine = {found.leader, *found.tied}
    if best is None or mine.intersection((best.leader, *best.tied)):
        return ""
    return (
        f"By pass ratio, the share of completions good enough in all objectives at once, another leads over all "
        f"preferences: {best.leader}, {interval(passed[best.leader])}; {found.leader} has "
        f"{interval(passed[found.leader])}."
    )


def ranking_rows(part: PartView, column: int) -> list[list[object]]:
    """Return the methods for one preference, best first: place in the study, value, its standing, scores.

    The standing is `leads`, `tied` or `behind`.
    """
    comparison = part.comparison
    values = {each.name: column_mean(each.judged[:, column], comparison.seeds) for each in comparison.ranked}
    found = lead({name: value.per_seed for name, value in values.items()})
    standing = {} if found is None else {found.leader: "leads", **dict.fromkeys(found.tied, "tied")}
    place = {each.name: index for index, each in enumerate(comparison.methods)}
    order = sorted(
        (name for name in values if values[name].value is not None), key=lambda name: -(values[name].value or 0.0)
    )
    return [
        [
            place[name],
            interval(values[name]),
            standing.get(name, "behind"),
            *(
                number(column_mean(each, comparison.seeds).value)
                for each in _everything(comparison.method(name))[:, column].T
            ),
        ]
        for name in order
    ]


def centre_column(comparison: Comparison) -> int:
    """Return the preference nearest to equal weights."""
    points = comparison.task.preferences
    return int(np.argmin(np.abs(points - 1 / points.shape[1]).sum(axis=1)))


def head(part: PartView, column: int) -> str:
    """Name a preference for a sentence."""
    label = part.comparison.labels[column]
    if column == centre_column(part.comparison) and np.ptp(part.comparison.task.preferences[column]) < 1e-6:
        return f"For equal weights ({label})"
    return f"For {label}" + (" (unseen in training)" if part.comparison.task.unseen[column] else "")
