"""Whether the objectives compete: in rewards, in gradients, and in what training did, in plain units."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paretune.core.preferences import SAME_PREFERENCE
from paretune.core.protocols import MetricValue
from paretune.relations.labels import PairEstimate, label
from paretune.relations.outcomes import OutcomeRelations, outcome_relations
from paretune.report.charts import Chart, heat
from paretune.report.comparison import Comparison, FloatArray, MethodResult
from paretune.report.section import Section
from paretune.report.tables import Table
from paretune.report.view import PartView
from paretune.report.wording import MINUS, interval, listing, number

UNIT = 0.1  # of the objective that is raised, in plain sentences
LEVELS = {"rewards": "rewards (rank correlation within prompts)", "gradients": "gradients (cosine)"}
HOW = (
    "Three levels. Rewards: do completions of the base model that score high on one objective score high on the "
    "other? Gradients: would a training step for one help the other? Outcomes: what a policy trained for one "
    "objective changed in the other, for each unit it gained, both as shares of their ranges; the interval is "
    "Fieller's, over seeds. The sentences take a tenth of the first one's range, in reward. Where every seed is "
    "another instance of the task, rewards and gradients are those of the first. A relation is "
    "named where its whole interval lies above .15 (correlated), below −.15 (competing) or between them "
    "(independent); else it is undetermined."
)


def data(part: PartView) -> Mapping[str, object]:
    """Say for every pair of objectives what raising one does to the other."""
    comparison = part.comparison
    outcomes = {
        each.name: found for each in comparison.ranked if (found := corner_outcomes(comparison, each)) is not None
    }
    measured = measured_levels(part)
    best = part.best(list(outcomes))
    sentences = [_level_sentence(comparison.objectives, measured, part.instance)]
    sentences += (
        _pairs(comparison.objectives, spans(comparison), best, outcomes[best])
        if best
        else ["No method has a policy for each objective alone, so nothing shows what raising one does to the others."]
    )
    return {
        "sentences": sentences,
        "charts": [
            *_charts(comparison.objectives, measured),
            *([_outcome_chart(comparison.objectives, best, outcomes[best])] if best else []),
        ],
        "tables": [
            _level_table(comparison.objectives, measured),
            *([_table(comparison.objectives, outcomes)] if outcomes else []),
        ],
        "notes": [] if measured else ["Rewards and gradients were not measured in this study."],
        "how": HOW,
    }


def needs(part: PartView) -> str:
    """Return why nothing relates."""
    return "" if len(part.comparison.objectives) > 1 else "This task has one objective."


def corner_outcomes(comparison: Comparison, method: MethodResult) -> OutcomeRelations | None:
    """Relate objectives by what a method's policies for each alone changed; None where one was not evaluated."""
    corners = []
    for corner in np.eye(len(comparison.objectives)):
        found = np.flatnonzero(np.abs(comparison.task.preferences - corner).max(axis=1) <= SAME_PREFERENCE)
        if not len(found):
            return None
        corners.append(method.scores[:, found[0]])  # [S, K]
    trained = np.stack(corners)[:, :, None]  # [K, S, 1, K]
    units = spans(comparison)
    if np.isnan(trained).all() or np.isnan(comparison.base_scores).all():
        return None
    return outcome_relations(comparison.base_scores[:, None] / units, trained / units)


def spans(comparison: Comparison) -> FloatArray:
    """Return the width of each objective's range, `[K]`: objectives are related in shares of these."""
    return np.array([high - low for low, high in comparison.ends[: len(comparison.objectives)]])


def measured_levels(part: PartView) -> Mapping[str, Mapping[str, Any]]:
    """Return what was measured of the base model: `rewards` and `gradients`, of the first seed that has it."""
    plain = {} if part.relations is None else part.relations[1]
    return {level: plain[level] for level in LEVELS if level in plain}


def _at(found: OutcomeRelations, row: int, column: int) -> PairEstimate:
    pairs = found.per_gain
    value, low, high = (float(each[row, column]) for each in (pairs.values, pairs.low, pairs.high))
    return PairEstimate(value, low, high, pairs.reasons[row][column])


def _pairs(names: Sequence[str], units: FloatArray, method: str, found: OutcomeRelations) -> list[str]:
    """Say of every pair what a little more of one does to the other, both ways; unclear pairs in one sentence."""
    said, unclear = [], []
    for a, b in itertools.combinations(range(len(names)), 2):
        ways = [(i, j, _at(found, i, j)) for i, j in ((a, b), (b, a))]
        if all(each.low <= 0 <= each.high for _, _, each in ways):
            unclear.append(f"{names[a]} and {names[b]}")
            continue
        both = [_way(f"+{_amount(UNIT * units[i])} {names[i]}", names[j], UNIT * units[j], each) for i, j, each in ways]
        said.append(f"{names[a]} and {names[b]}: {listing(both)} under {method}.")
    if unclear:
        said.append(f"Nothing shows that more of one costs or brings the other under {method}: {listing(unclear)}.")
    return said


def _way(raised: str, other: str, unit: float, found: PairEstimate) -> str:
    if np.isnan(found.value):
        return f"training for {raised.partition(' ')[2]} did not clearly raise it"
    change, low, high = (unit * each for each in (found.value, found.low, found.high))
    if np.isnan(low):
        return f"{raised} changes {other} by {_amount(change)}, without an interval"
    ends = f"[{_amount(low)}, {_amount(high)}]"
    if low <= 0 <= high:
        return f"{raised} leaves {other} unchanged as far as can be told ({_amount(change)} {ends})"
    if change < 0:
        return f"{raised} costs {_amount(-change)} {other} [{_amount(-high)}, {_amount(-low)}]"
    return f"{raised} brings {_amount(change)} {other} {ends}"


def _amount(value: float) -> str:
    """Write an amount of reward with two decimals, three where two show nothing, and no leading zero.

    Example:
        >>> _amount(0.1), _amount(-0.056), _amount(10.25), _amount(0.004)
        ('.10', '−.06', '10.25', '.004')
    """
    digits = 2 if abs(value) >= 0.005 else 3
    text = f"{abs(value):.{digits}f}".removeprefix("0")
    return MINUS + text if value < 0 and text.strip(".0") else text


def _text(plain: Mapping[str, Any], row: int, column: int) -> str:
    value, low, high = (plain[name][row][column] for name in ("values", "low", "high"))
    return f"{interval(MetricValue(value, low, high))} {label(low, high) or ''}".strip()


def _level_sentence(names: Sequence[str], measured: Mapping[str, Mapping[str, Any]], instance: str) -> str:
    parts = []
    for a, b in itertools.combinations(range(len(names)), 2):
        labels = {level: (plain["labels"][a][b] or "of unknown relation") for level, plain in measured.items()}
        if labels:
            same = set(labels.values())
            said = (
                next(iter(same))
                if len(same) == 1
                else listing([f"{word} in {level}" for level, word in labels.items()])
            )
            parts.append(f"{names[a]} and {names[b]} are {said}")
    head = f"Before any training, {instance}" if instance else "Before any training"
    return f"{head}: {'; '.join(parts)}." if parts else ""


def _charts(names: Sequence[str], measured: Mapping[str, Mapping[str, Any]]) -> list[Chart]:
    return [
        Chart(
            heat(
                [[None if i == j else plain["values"][i][j] for j in range(len(names))] for i in range(len(names))],
                names,
                names,
                [
                    [
                        "" if i == j else _text(plain, i, j).replace(" [", "<br>[").replace("] ", "]<br>")
                        for j in range(len(names))
                    ]
                    for i in range(len(names))
                ],
            ),
            f"{LEVELS[level]} of every pair of objectives; the table below holds the numbers",
            LEVELS[level],
            height=120 + 75 * len(names),
        )
        for level, plain in measured.items()
    ]


def _outcome_chart(names: Sequence[str], method: str, found: OutcomeRelations) -> Chart:
    values, labels = found.per_gain.values, found.per_gain.labels()
    texts = [
        ["gained" if i == j else f"{number(float(values[i, j]))}<br>{labels[i][j] or ''}" for j in range(len(names))]
        for i in range(len(names))
    ]
    plain = [
        [None if i == j or np.isnan(values[i, j]) else float(values[i, j]) for j in range(len(names))]
        for i in range(len(names))
    ]
    drawn = heat(plain, names, names, texts, "changed", "trained for")
    title = f"Outcomes under {method}: change per unit gained, in shares of the ranges"
    return Chart(drawn, f"{title}; rows: trained for, columns: changed", title, height=120 + 75 * len(names))


def _level_table(names: Sequence[str], measured: Mapping[str, Mapping[str, Any]]) -> Table:
    lines = [
        (f"{names[a]} and {names[b]}", *(_text(plain, a, b) for plain in measured.values()))
        for a, b in itertools.combinations(range(len(names)), 2)
    ]
    return Table(
        "relations",
        "Relations under the base model [95 % interval]",
        ("pair", *(LEVELS[each] for each in measured)),
        tuple(lines),
    )


def _table(names: Sequence[str], outcomes: Mapping[str, OutcomeRelations]) -> Table:
    ways = list(itertools.permutations(range(len(names)), 2))
    lines = [(method, *(_estimate(_at(found, i, j)) for i, j in ways)) for method, found in outcomes.items()]
    title = "Outcomes: change of the second objective per unit gained in the first [95 % Fieller interval]"
    return Table("outcomes", title, ("method", *(f"{names[i]} → {names[j]}" for i, j in ways)), tuple(lines))


def _estimate(found: PairEstimate) -> str:
    value, low, high = (None if np.isnan(each) else each for each in (found.value, found.low, found.high))
    return interval(MetricValue(value, low, high))


SECTION = Section("relations", "Do the objectives compete?", "Relations", data, needs)
