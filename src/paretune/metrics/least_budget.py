"""The least budget with which a method comes close to the best one: quality against cost in one number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from paretune.core.protocols import FAMILIES, MetricValue
from paretune.metrics.judged import gain, noun_of
from paretune.metrics.seeds import Group, groups, joined, over_seeds
from paretune.records.study import StudyRecords

CLOSE = 0.95  # of the best gain
Gained = tuple[Group, MetricValue]


def least_budgets(study: StudyRecords) -> Iterator[Gained]:
    """Yield for each task and method the least budget whose mean gain over the base model is close to the best.

    The best is the highest mean gain that a method has at the largest budget; ceilings are no methods. Where what users
    want depends on the prompt, methods are held against those that hear as much of it. A value belongs to the group of
    its method at the largest budget.
    """
    for task in study.tasks.values():
        mine = [each for each in groups(study) if each.task.name == task.name and each.cells[0].family in FAMILIES]
        classes: dict[str, list[Group]] = {}
        for group in mine:
            classes.setdefault(group.cells[0].feedback if task.contextual else "", []).append(group)
        for rivals in classes.values():
            largest = max(each.budget_completions for each in rivals)
            measure = gain(study, task)
            found = [(each, over_seeds(each.cells, measure)) for each in rivals]
            for group in rivals:
                if group.budget_completions == largest:
                    yield group, _least(found, group, noun_of(study, task))


def _least(found: Sequence[Gained], mine: Group, noun: str) -> MetricValue:
    largest = f"{mine.budget_completions:,} completions"
    lost = [
        f"with {group.budget_completions:,} completions {value.reason}"
        for group, value in found
        if group.method == mine.method and len(value.per_seed) < len(group.cells)
    ]
    if len({group.budget_completions for group, _ in found}) == 1:
        return MetricValue(None, reason=joined("the study has one budget: run several", *lost))
    best = {
        group.method: value.value
        for group, value in found
        if group.budget_completions == mine.budget_completions and value.value is not None
    }
    if not best or max(best.values()) <= 0:
        return MetricValue(None, reason=joined(f"no method gains over the base model with {largest}", *lost))
    leader = max(best, key=lambda name: best[name])
    said = f"the best is {leader}: gain {best[leader]:.3g} in {noun} with {largest}"
    reached = [
        group.budget_completions
        for group, value in found
        if group.method == mine.method and value.value is not None and value.value >= CLOSE * best[leader]
    ]
    if not reached:
        return MetricValue(None, reason=joined(f"does not come so close with {largest}", said, *lost))
    return MetricValue(float(min(reached)), reason=joined("one value for all seeds: no interval", said, *lost))
