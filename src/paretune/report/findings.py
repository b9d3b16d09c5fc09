"""The plain-words summary: sentences computed from the data that stay true whatever the outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from paretune.core.protocols import MetricRow, MetricValue
from paretune.report.comparison import Comparison
from paretune.report.conflicts import conflicts
from paretune.report.controls import controls_sentence
from paretune.report.costs import Cost, costs, spent_seconds
from paretune.report.estimates import LEVEL, column_mean, difference, p_value
from paretune.report.heat_map import BASE, heat_map, separable
from paretune.report.measured import judged, measured, rows_of
from paretune.report.wording import MANY, count, interval, listing, number, seconds
from paretune.statistics.ties import holm

FEW = 4  # of methods, the speeds of all are named in a sentence
SAME = 1e-12  # means this close are equal
MEANINGS = {
    "achieved utility": "the preference-weighted mean reward on test prompts, averaged",
    "achieved J": "the preference-weighted mean reward on test prompts less beta times KL, averaged",
    "captured share": "the gain in J over the base model on test prompts as a share of the best policies' gain, summed",
}

KNOWN = {
    "told": "know the preference alone",
    "utility": "see in training the one number that each completion is worth to its user",
    "oracle": "are asked for what the user wants of the prompt itself",
}


@dataclass(frozen=True)
class Finding:
    """One question and its answer in words."""

    question: str
    answer: str


@dataclass(frozen=True)
class Lead:
    """Who has the highest mean somewhere, of what the task is judged on, and who cannot be told apart from it.

    Attributes:
        leaders: Those with the highest mean; more than one only where means are equal.
        tied: Others, equal ones included, that cannot be told apart from the leader: by the t-test of the difference,
            paired by seed and corrected after Holm, or because they share fewer than two seeds with it.
        behind: The rest, each told apart from the leader.
    """

    leaders: tuple[str, ...]
    tied: tuple[str, ...]
    behind: tuple[str, ...]

    @property
    def leader(self) -> str:
        """The first of the leaders: what the others are compared with."""
        return self.leaders[0]


def findings(
    comparison: Comparison, rows: Sequence[MetricRow], controls: Mapping[str, str] | None = None
) -> list[Finding]:
    """Answer: who leads, for which preferences, is it better than the base, what did it cost, how fast is it.

    Args:
        comparison: The comparison.
        rows: All rows of the study's metrics.
        controls: Dynamic method -> the row that is its control.
    """
    ranked = [method.name for method in comparison.ranked]
    spent = [cost for cost in costs(comparison, rows) if cost.method in ranked]
    name, values = judged(comparison, rows)
    means = {method: value for method, value in values.items() if method in ranked}
    captured = _captured(comparison, rows)
    turned, learned = conflicts(comparison), controls_sentence(controls or {}, name, means)
    return [
        *((Finding("Who is compared?", _class_sentence(comparison)),) if comparison.feedback else ()),
        Finding("Who leads on average?", _overall(comparison, name, means)),
        *((Finding("How much of the possible gain?", captured),) if captured else ()),
        Finding("For which preferences?", _by_preference(comparison)),
        Finding("Better than the base model?", _against_base(comparison)),
        *((Finding("Do dynamic methods beat shuffled feedback?", learned),) if learned else ()),
        *((Finding("Do steps turn against an objective?", turned),) if turned else ()),
        Finding("At what cost?", _training_cost(spent)),
        Finding(
            "How fast does it decode?",
            _speed(spent),
        ),
    ]


def _class_sentence(comparison: Comparison) -> str:
    return (
        "What users want depends on the prompt here, so methods are ranked among those that are told as much: the "
        f"methods of this section (feedback: {comparison.feedback}) {KNOWN[comparison.feedback]}."
    )


def lead(utilities: Mapping[str, Mapping[int, float]]) -> Lead | None:
    """Find the leader and its tie group from per-seed utilities of each method; None without any."""
    measured = {name: values for name, values in utilities.items() if values}
    if not measured:
        return None
    means = {name: float(np.mean(list(values.values()))) for name, values in measured.items()}
    leaders = _top(means)
    leader = leaders[0]
    others = [name for name in sorted(means, key=lambda name: -means[name]) if name != leader]
    differs = holm([p_value(measured[leader], measured[name]) for name in others], LEVEL)
    tied = tuple(name for name, different in zip(others, differs, strict=True) if not different)
    return Lead(leaders, tied, tuple(name for name in others if name not in tied))


def _overall(comparison: Comparison, score: str, means: Mapping[str, MetricValue]) -> str:
    found = lead({name: value.per_seed for name, value in means.items()})
    if found is None:
        if any(method.done for method in comparison.ranked):
            noun = comparison.task.judged_on
            return f"No method has a {noun} for every preference in any seed, so there is nothing to compare."
        return "No method has finished a cell yet, so there is nothing to compare."
    what = f"{score} ({MEANINGS[score]}, over all {count(len(comparison.labels), 'preference')})"
    measured = [name for name, value in means.items() if value.value is not None]
    if len(measured) == 1:
        return f"{found.leader} is the only method with results: {what} {interval(means[found.leader])}."
    best = found.leaders
    if len(best) > 1:
        opening = f"{listing(best)} share the highest {what}: {interval(means[best[0]])}."
    else:
        opening = f"{found.leader} has the highest {what}: {interval(means[found.leader])}."
    parts = [opening]
    rivals = [name for name in found.tied if name not in best]
    if rivals:
        named = listing([name if len(rivals) > MANY else f"{name} ({interval(means[name])})" for name in rivals])
        subject = "They" if len(best) > 1 else "It"
        parts.append(f"{subject} cannot be told apart from {named}: {_why_tied(means, found)}.")
    partial = [
        f"{name} {len(value.per_seed)}"
        for name, value in means.items()
        if 0 < len(value.per_seed) < len(comparison.seeds)
    ]
    if found.behind:
        gaps = _gaps(means, found)
        verb = "are" if len(found.behind) > 1 else "is"
        rest = "" if found.tied else " Every other method can be told apart from it."
        parts.append(f"{listing(gaps)} {verb} behind it.{rest}")
    if partial:
        parts.append(f"Of {len(comparison.seeds)} seeds planned, these rest on fewer: {listing(partial)}.")
    return " ".join(parts)


def _top(means: Mapping[str, float]) -> tuple[str, ...]:
    highest = max(means.values())
    return tuple(name for name, value in means.items() if value >= highest - SAME)


def _why_tied(means: Mapping[str, MetricValue], found: Lead) -> str:
    if all(difference(means[name], means[found.leader]).low is None for name in found.tied):
        return "they have fewer than two seeds in common, so nothing shows how far chance reaches"
    return "the difference, paired by seed and corrected for the number of methods, may be 0"


def _gaps(means: Mapping[str, MetricValue], found: Lead) -> list[str]:
    if len(found.behind) > MANY:
        return list(found.behind)
    gaps = {name: difference(means[name], means[found.leader]) for name in found.behind}
    return [f"{name} (difference {interval(gap, signed=True)})" for name, gap in gaps.items()]


def _by_preference(comparison: Comparison) -> str:
    leads = {}
    for column, label in enumerate(comparison.labels):
        values = {
            method.name: column_mean(method.judged[:, column], comparison.seeds).per_seed
            for method in comparison.ranked
        }
        found = lead(values)
        if found is not None and sum(bool(each) for each in values.values()) > 1:
            leads[label] = found
    if not leads:
        return "Fewer than two methods have results, so nobody leads anybody."
    alone = {label: found.leader for label, found in leads.items() if not found.tied}
    parts = [
        f"{name} leads alone for {len(labels)} of {len(leads)} ({'; '.join(labels)})"
        for name, labels in _grouped(alone).items()
    ]
    shared = {label: found for label, found in leads.items() if found.tied}
    if shared and not parts:
        parts.append(
            f"For none of the {count(len(leads), 'preference')} can the best method be told apart from all others"
        )
    elif shared:
        parts.append(f"for the other {len(shared)}, the best method cannot be told apart from at least one more")
    sentence = "; ".join(parts) + "."
    if shared:
        highest = _grouped({label: listing(found.leaders) for label, found in shared.items()})
        counts = listing([f"{name} for {len(labels)}" for name, labels in highest.items()])
        where = "Among those, the" if alone else "The"
        sentence += f" {where} highest mean is that of {counts}: an observation, not a result."
    return sentence


def _captured(comparison: Comparison, rows: Sequence[MetricRow]) -> str:
    """Say what share of the possible gain each method captured; empty where the optimum is not known."""
    mine = rows_of(comparison, rows)
    shares = [(method, measured(mine, method.name, "captured_share")) for method in comparison.methods]
    known = [(method, value) for method, value in shares if value.value is not None]
    if not known:
        return ""
    parts = [f"{method.name} {interval(value)}" for method, value in known if not method.ceiling]
    ceilings = [f"{method.name} {interval(value)}" for method, value in known if method.ceiling]
    said = f"Of what the best policies gain over the base model, KL paid for: {listing(parts)}." if parts else ""
    found = lead({method.name: value.per_seed for method, value in known if not method.ceiling})
    if found is not None and len(parts) > 1:
        rivals = [name for name in found.tied if name not in found.leaders]
        tied = f", which cannot be told apart from {listing(rivals)}" if rivals else ""
        said += f" The largest share is that of {listing(found.leaders)}{tied}."
    above = f" The ceiling, trained without sampling noise: {listing(ceilings)}." if ceilings else ""
    passed = _above_the_ceiling(comparison, mine)
    if passed:
        above += (
            f" For the preferences it was trained for it lies below {listing(passed)}, so it was not trained long "
            "enough to be one: give it more updates."
        )
    lost = [method.name for method, value in shares if value.value is None and not method.ceiling]
    return (said + above + (f" No share is known of {listing(lost)}." if lost else "")).strip()


def _above_the_ceiling(comparison: Comparison, mine: Sequence[MetricRow]) -> list[str]:
    """Return the methods that captured more than a ceiling of the preferences it was given, beyond doubt."""
    shares = {method.name: measured(mine, method.name, "captured_share", "seen") for method in comparison.methods}
    found = []
    for ceiling in (method for method in comparison.methods if method.ceiling):
        for method in comparison.ranked:
            apart = difference(shares[method.name], shares[ceiling.name])
            if apart.low is not None and apart.low > 0:
                found.append(method.name)
    return found


def _grouped(owners: Mapping[str, str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for label, owner in owners.items():
        groups.setdefault(owner, []).append(label)
    return dict(sorted(groups.items(), key=lambda item: -len(item[1])))


def _against_base(comparison: Comparison) -> str:
    if not comparison.references:
        return "The base model was not evaluated, so this cannot be said."
    differences = heat_map(comparison, BASE)
    verdicts: dict[str, list[str]] = {}
    ranked = [method.name for method in comparison.ranked]
    for name, row in zip(differences.methods, differences.differences, strict=True):
        if name not in ranked:
            continue
        measured = [each for each in row if each.value is not None]
        verdicts.setdefault(f"{_verdict(measured)} of {len(measured)}" if measured else "", []).append(name)
    parts = []
    for verdict, names in verdicts.items():
        verb = ("is" if verdict else "has") if len(names) == 1 else ("are" if verdict else "have")
        parts.append(f"{listing(names)} {verb} {verdict or 'no results'}")
    return f"Counting preferences: {'; '.join(parts)}."


def _verdict(measured: Sequence[MetricValue]) -> str:
    """Count preferences above, below and undecided; without any interval, only the sign can be told."""
    above = sum(separable(each) and (each.value or 0.0) > 0 for each in measured)
    below = sum(separable(each) and (each.value or 0.0) < 0 for each in measured)
    unclear = len(measured) - above - below
    if all(each.low is None for each in measured):
        higher = sum((each.value or 0.0) > 0 for each in measured)
        return f"higher in one seed, without an interval, for {higher}"
    words = [f"above it for {above}" if above else "", f"below it for {below}" if below else ""]
    words.append(f"not distinguishable from it for {unclear}" if unclear else "")
    return listing([each for each in words if each])


def _training_cost(spent: Sequence[Cost]) -> str:
    parts, absent = [], []
    for cost in spent:
        if cost.completions.value is None:
            absent.append(cost.method)
            continue
        parts.append(
            f"{cost.method} {number(cost.completions.value)} completions and {spent_seconds(cost.seconds_sum)} "
            f"(longest chain {seconds(cost.seconds_chain.value)})"
        )
    if not parts:
        return "No finished cell has a ledger yet."
    missing = f" Nothing is known of {listing(absent)}." if absent else ""
    return (
        f"Per seed: {'; '.join(parts)}. The first figure in seconds adds up everything trained; the longest chain "
        f"is what would remain with unlimited machines.{missing}"
    )


def _speed(spent: Sequence[Cost]) -> str:
    return speed_sentence({each.method: each.speed_ratio for each in spent}, next(iter(spent)).timed if spent else "")


def speed_sentence(ratios: Mapping[str, MetricValue], rows: str) -> str:
    """Say how fast methods decode beside the base model, or that no difference between them can be shown.

    Args:
        ratios: Tokens per second over the base model's, by method.
        rows: How many prompts were answered at once, as the label says it: `16 rows`.
    """
    timed = {name: each for name, each in ratios.items() if each.value is not None}
    if not timed:
        return "Decoding was not timed."
    absent = [name for name in ratios if name not in timed]
    missing = f" Not timed: {listing(absent)}." if absent else ""
    order = sorted(timed, key=lambda name: -(timed[name].value or 0.0))
    lows, highs = ([end for each in timed.values() if (end := getattr(each, side)) is not None] for side in _ENDS)
    whole = len(lows) == len(highs) == len(timed) > 1
    shown = order if len(order) <= FEW else [order[0], order[-1]]
    parts = listing([f"{name} {interval(timed[name])}" for name in shown], "and" if shown == order else "to")
    said = f"Times the base model's tokens per second, timed in turn with it, {rows}: {parts}."
    alike = " No difference between methods can be shown: their intervals overlap."
    return f"{said}{alike if whole and max(lows) <= min(highs) else ''}{missing}"


_ENDS = ("low", "high")
