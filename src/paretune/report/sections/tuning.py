"""What was tuned before anything was reported: the settings chosen, what they scored, and what that cost."""

from __future__ import annotations

from collections.abc import Sequence

from paretune.core.protocols import CEILING
from paretune.records.study import StudyRecords, TuningRecord
from paretune.report.tables import Table, Value
from paretune.report.wording import count, listing, number, seconds

MEASURES = {"captured_share": "captured share", "J": "mean J", "utility": "mean utility"}


def tuning_sentence(study: StudyRecords) -> str:
    """Say how settings were chosen, and at which cost; empty where nothing was tuned."""
    if not study.tuning:
        return ""
    instances = sorted({seed for record in study.tuning for seed in record.points[0].per_seed})
    tried = max(len(record.points) for record in study.tuning)
    fewest = min(len(record.points) for record in study.tuning)
    budgets = sorted({record.budget_completions for record in study.tuning})
    measures = listing([MEASURES[each] for each in dict.fromkeys(record.measure for record in study.tuning)])
    spent = sum(record.completions for record in study.tuning)
    rest = list(dict.fromkeys(cell.method for cell in study.cells if cell.family == CEILING))
    return (
        f"Before anything was reported, every method was tried with the same {count(tried, 'choice')} of settings"
        f"{', less those that it cannot set,' if fewest < tried else ''} on "
        f"{count(len(instances), 'tuning instance')} ({listing([str(seed) for seed in instances])}), which no study "
        f"reports, at {listing([f'{budget:,}' for budget in budgets])} completions. Scores are of development "
        f"prompts: {measures}. All trials together took {number(spent)} completions and "
        f"{seconds(sum(record.seconds for record in study.tuning))} of training, charged to nobody."
        + "".join(f" {each}" for each in _with_fewer(study, tried))
        + (f" A ceiling is not tuned: {listing(rest)}." if rest else "")
    )


def _with_fewer(study: StudyRecords, tried: int) -> list[str]:
    """Say which rows lack some of the settings, and were tried with fewer choices."""
    fewer: dict[int, dict[str, None]] = {}
    for record in study.tuning:
        if len(record.points) < tried:
            fewer.setdefault(len(record.points), {})[record.method] = None
    said = {True: ("lacks", "was"), False: ("lack", "were")}
    return [
        f"{listing(list(names))}, which {said[len(names) == 1][0]} some of these settings, {said[len(names) == 1][1]} "
        f"tried with {count(number, 'choice')}."
        for number, names in fewer.items()
    ]


def chosen_table(records: Sequence[TuningRecord]) -> Table:
    """Return the settings chosen for each method on each task, and what they scored beside the others."""
    columns = ("task", "method", "settings", "score", "lowest_score", "tried", "completions", "seconds")
    rows: list[tuple[Value, ...]] = []
    for record in records:
        scores = [point.score for point in record.points if point.score is not None]
        best = None if record.chosen is None else record.points[record.chosen]
        found = ("none could be scored", None, None) if best is None else (best.text, best.score, min(scores))
        rows.append((record.task, record.method, *found, len(record.points), record.completions, record.seconds))
    return Table(
        "chosen", "Settings chosen by tuning; tables/tuning.csv holds all that were tried", columns, tuple(rows)
    )


def tried_table(study: StudyRecords) -> Table | None:
    """Return every trial of tuning: one row for each instance, and one for all together; None where there was none."""
    columns = ("task", "method", "settings", "instance", "measure", "score", "chosen", "reason")
    rows: list[tuple[Value, ...]] = []
    for record in study.tuning:
        for place, point in enumerate(record.points):
            head = (record.task, record.method, point.text)
            chosen = "yes" if place == record.chosen else "no"
            for instance, score in [("all", point.score), *point.per_seed.items()]:
                reason = point.reason if score is None else ""
                rows.append((*head, str(instance), record.measure, score, chosen, reason))
    return Table("tuning", "Settings tried on tuning instances", columns, tuple(rows)) if rows else None
