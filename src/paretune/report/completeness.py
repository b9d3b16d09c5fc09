"""What was planned, what is there, and what is missing: the first thing a reader should know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paretune.core.scores import missing_share
from paretune.records.evaluation import EvaluationRecord
from paretune.records.study import CellRecord, StudyRecords
from paretune.records.tables import NOT_YET
from paretune.report.comparison import Comparison
from paretune.report.wording import count, listing

ENOUGH_SEEDS = 3
OWN_UTILITY = "paretune.metrics.own_utility:OwnUtility"  # values every row under each utility, docs/metrics.md
REASONS = {
    "out_of_memory": "out of memory",
    "crash": "the worker process crashed",
    "not_finite": "a number became NaN or infinite",
    "reward_error": "the rewards could not be computed",
    "task_error": "the task's files could not be used",
    "model_error": "the base model could not be loaded or adapted",
    "disk_full": "the disk was full",
    "method_error": "the method's own code failed",
}
STATUSES = {
    "missing": "the reward function gave none",
    "wrong_length": "the reward function returned the wrong number of rewards",
    "not_finite": "the reward was NaN or infinite",
    "out_of_range": "the reward was outside its declared range",
    "raised": "the reward function raised an error",
}


@dataclass(frozen=True)
class MissingRewards:
    """How many rewards could not be made.

    Attributes:
        total: Rewards asked for.
        missing: Rewards that are missing.
        causes: (objective, status) -> how many.
    """

    total: int
    missing: int
    causes: dict[tuple[str, str], int]


def state_counts(study: StudyRecords) -> Counter[str]:
    """Count cells by state."""
    return Counter(cell.state for cell in study.cells)


def failure(cell: CellRecord) -> str:
    """Say in words why a cell failed."""
    if cell.reason is None:
        return "no reason recorded"
    return REASONS.get(cell.reason, cell.reason)


def missing_rewards(study: StudyRecords) -> MissingRewards:
    """Count missing rewards over all test evaluations, the base model's included."""
    records = _tests(study)
    causes: Counter[tuple[str, str]] = Counter()
    for record in records:
        names = record.objectives + record.audit
        for row, column in zip(*np.nonzero(np.isnan(record.rewards)), strict=True):
            causes[names[column], str(record.statuses[row, column])] += 1
    return MissingRewards(sum(record.rewards.size for record in records), causes.total(), dict(causes.most_common()))


def _tests(study: StudyRecords) -> list[EvaluationRecord]:
    tests = [each for cell in study.cells for each in cell.evaluations if each.split == "test"]
    return [*tests, *study.references.values()]


def missing_shares(study: StudyRecords) -> list[str]:
    """Say of each objective how many of its rewards are missing, in training and in tests; empty without any."""
    counts: Counter[tuple[str, str, bool]] = Counter()  # where, objective, whether it is missing
    for task, stage in {stage.key: (cell.task, stage) for cell in study.cells for stage in cell.stages}.values():
        names = [each.name for each in study.tasks[task].trained]
        for name, made, lost in zip(names, stage.scored, stage.missing, strict=False):  # none where nothing was scored
            counts["training", name, False] += made
            counts["training", name, True] += lost
    for record in _tests(study):
        for name, column in zip(record.objectives + record.audit, record.rewards.T, strict=True):
            counts["tests", name, False] += int((~np.isnan(column)).sum())
            counts["tests", name, True] += int(np.isnan(column).sum())
    return [
        missing_share(name, lost, lost + counts[where, name, False], where)
        for (where, name, is_lost), lost in counts.items()
        if is_lost and lost
    ]


def warnings(study: StudyRecords, parts: tuple[Comparison, ...]) -> list[str]:
    """Return what a reader must know before believing any number; empty when there is nothing."""
    found = []
    running, waiting = started_parts(study)
    if waiting:
        found.append(
            f"This folder holds {listing([f'part {name}' for name in running])} of the study, and not "
            f"{listing(waiting)}. Run those too; several folders make one report with paretune report DIR DIR -o OUT."
        )
    cells = [cell for cell in study.cells if not waiting or any(in_part(study, cell, name) for name in running)]
    states: Counter[str] = Counter(cell.state for cell in cells)
    absent = [count(states[state], f"cell {word}", f"cells {word}") for state, word in _UNFINISHED if states[state]]
    if absent:
        found.append(
            f"Incomplete: {listing(absent)} of {len(cells)}. A method's numbers rest on the seeds it finished; "
            "differences are taken over seeds that both sides finished."
        )
    fewest = min((seeds for part in parts if (seeds := finished_seeds(part))), default=0)
    if 0 < fewest < ENOUGH_SEEDS:
        detail = "one run shows no spread, so there are no intervals" if fewest == 1 else "intervals are very wide"
        found.append(f"Only {count(fewest, 'seed')}: {detail}. Use at least {ENOUGH_SEEDS} before drawing conclusions.")
    found += lone_policies(study, parts)
    found += other_utilities(study, parts)
    without = [part.title for part in parts if len(part.references) < len(part.seeds)]
    if without:
        found.append(f"The base model was not evaluated for every seed: {listing(without)}.")
    found += missing_tables(study)
    found += [each for each in missing_shares(study) if " in training" in each]
    lost = missing_rewards(study)
    if lost.missing:
        found.append(
            f"{lost.missing:,} of {lost.total:,} rewards are missing. They are left out of means, never counted as 0."
        )
    return found


def missing_tables(study: StudyRecords) -> list[str]:
    """Name what was measured and cannot be used, or failed; what has not been measured yet is no news."""
    named = {cell.cell for cell in study.cells if cell.state == "failed" or (cell.state == "pending" and cell.message)}
    found = [
        f"Cell {cell.cell} is left out. {cell.message}"
        for cell in study.cells
        if cell.state == "pending" and cell.message
    ]
    return found + [
        f"{table.measurement} is missing: {table.folder}: {study.missing[table.folder]}."
        for table in study.tables
        if study.missing.get(table.folder, NOT_YET) != NOT_YET and not named.intersection(table.cells)
    ]


def started_parts(study: StudyRecords) -> tuple[list[str], list[str]]:
    """Return the parts that have run, and the others; nothing where none has, or there are no parts.

    A cell that several parts have in common tells of none of them, unless a part has no other.
    """
    running = []
    for name in _parts(study):
        mine = [cell for cell in study.cells if in_part(study, cell, name)]
        alone = [cell for cell in mine if not any(in_part(study, cell, part) for part in _parts(study) if part != name)]
        if any(cell.state != "pending" for cell in alone or mine):
            running.append(name)
    return running, [name for name in _parts(study) if name not in running] if running else []


def in_part(study: StudyRecords, cell: CellRecord, part: str) -> bool:
    """Whether a cell belongs to a part of the study."""
    chosen = _parts(study)[part]
    return cell.task in chosen["tasks"] and cell.seed in chosen["seeds"]


def _parts(study: StudyRecords) -> Mapping[str, Any]:
    parts = study.resolved.get("parts")
    return parts if isinstance(parts, Mapping) else {}


def finished_seeds(part: Comparison) -> int:
    """Return the number of seeds with which some method finished."""
    return len({cell.seed for method in part.methods for cell in method.done})


def lone_policies(study: StudyRecords, parts: Sequence[Comparison]) -> list[str]:
    """Say which methods answered every preference with a single policy, and what would change it."""
    found = [
        one_policy(
            method.name,
            part.budget_completions,
            _settings(study, part.task.name, method.name),
            method.name not in _undivided(study),
        )
        for part in parts
        for method in part.ranked
        if method.policies == method.answering == 1
        and len(part.task.preferences) > 1
        and _settings(study, part.task.name, method.name).get("method") != "one_policy"  # which is meant to
    ]
    return list(dict.fromkeys(found))  # once for several tasks


def one_policy(label: str, budget_completions: int, settings: Mapping[str, object], divides: bool = True) -> str:
    """Say that a method trains a single policy, so that it cannot follow preferences, and what would change it.

    Args:
        label: Its name in the study.
        budget_completions: Of a cell.
        settings: Its settings; `method` among them names it where the label does not.
        divides: Whether it would plan more policies with a budget for them.
    """
    source = settings.get("method", label)
    name = label if label == source else f"{label} ({source})"
    each = settings.get("completions_each")
    advice = (
        f"Each policy takes {each:,} (completions_each): raise the budget, or lower that."
        if divides and isinstance(each, int) and budget_completions < 2 * each
        else "It is made so: no budget gives it another."
    )
    return (
        f"{name} trains one policy only on {budget_completions:,} completions, and it answers every preference. "
        f"{advice}"
    )


def other_utilities(study: StudyRecords, parts: Sequence[Comparison]) -> list[str]:
    """Say which ranked methods train for a utility that they are not ranked by."""
    said = [
        other_utility(method.name, _settings(study, part.task.name, method.name), study.resolved.get("metrics"))
        for part in parts
        for method in part.ranked
    ]
    return [each for each in dict.fromkeys(said) if each]


def other_utility(label: str, settings: Mapping[str, object], metrics: object) -> str:
    """Say that a row trains for a utility that it is not ranked by; empty where it does not.

    Of the methods that do, these are `chebyshev` and `thresholds` of what is expected, whose utilities can be measured.

    Args:
        label: Its name in the study.
        settings: Its settings; `method` among them names it where the label does not.
        metrics: A user's own metrics that the study asks for, by their names.
    """
    source = settings.get("method", label)
    if source != "chebyshev" and (source, settings.get("level")) != ("thresholds", "expected"):
        return ""
    name = label if label == source else f"{label} ({source})"
    asked = isinstance(metrics, (list, tuple)) and OWN_UTILITY in metrics
    where = (
        "'Utility by kind' values it by its own."
        if asked
        else f'Add metrics: ["{OWN_UTILITY}"] to the study to see it.'
    )
    return f"{name} trains for its own utility and is ranked by the weighted sum. {where}"


def _undivided(study: StudyRecords) -> Sequence[str]:
    """Return the methods that plan one policy whatever the budget, as they said when the study was planned."""
    found = study.resolved.get("undivided")
    return found if isinstance(found, (list, tuple)) else ()


def _settings(study: StudyRecords, task: str, method: str) -> Mapping[str, object]:
    """Return what a method was given, and what tuning chose for it on a task."""
    methods = study.resolved.get("methods")
    settings = methods.get(method) if isinstance(methods, Mapping) else None
    mine = (each for each in study.tuning if (each.task, each.method) == (task, method) and each.chosen is not None)
    chosen = next((each.points[each.chosen or 0].settings for each in mine), {})
    return {**(settings if isinstance(settings, Mapping) else {}), **chosen}


_UNFINISHED = (("failed", "failed"), ("pending", "not run yet"))
