"""What it costs to answer every preference of the grid, and one more: from stages and answers on record."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from paretune.metrics.seeds import NoValueError, answers
from paretune.records.evaluation import EvaluationRecord
from paretune.records.study import CellRecord, StageRecord, TaskInfo

Cost = Callable[[StageRecord], float]
NEIGHBOURS = ("nearest", "estimated")  # answers by a policy that was trained for another preference
UNTRAINED = "untrained"


def cost_of(cell: CellRecord, amount: Callable[[StageRecord], float | None], unit: str) -> Cost:
    """Return what each of a cell's stages cost.

    Args:
        cell: The cell.
        amount: Of a stage; None where it was never counted.
        unit: What is counted, for the reason.

    Raises:
        NoValueError: If it was not counted of a stage.
    """
    costs = {stage.key: amount(stage) for stage in cell.stages}
    for stage in cell.stages:
        if costs[stage.key] is None:
            raise NoValueError(f"has a stage ({stage.kind}) whose {unit.replace('_', ' ')} were not counted")
    return lambda stage: costs[stage.key] or 0.0


def stage_sum(stages: Sequence[StageRecord], cost: Cost) -> float:
    """Return the cost of all stages together, each once."""
    return sum(map(cost, {stage.key: stage for stage in stages}.values()))


def cost_to_cover(cell: CellRecord, task: TaskInfo, cost: Cost) -> float | str:
    """Return what it costs until no preference of the grid is answered by the policy of another, or why it is unknown.

    All that the cell was charged, and the mean cost of a policy for each preference that a neighbour's policy answers.

    Args:
        cell: A finished cell.
        task: Its task; the grid is its preferences that are not unseen.
        cost: Of a stage.
    """
    records = answers(cell, task, ~task.unseen)
    if isinstance(records, str):
        return records
    lacking = borrowed(records)
    each = policy_cost(cell, records, cost) if lacking else 0.0
    if isinstance(each, str):
        return each
    return stage_sum(cell.stages, cost) + lacking * each


def marginal_cost(cell: CellRecord, task: TaskInfo, cost: Cost) -> float | str:
    """Return what a policy for one more preference costs, or why that cannot be told.

    It is 0 where preferences that no method was given are answered without training, by selecting or combining what is
    there; and the mean cost of a policy where a policy of another preference answers them.

    Args:
        cell: A finished cell.
        task: Its task.
        cost: Of a stage.
    """
    records = newcomers(cell, task)
    if isinstance(records, str):
        return records
    if any(record.answer == UNTRAINED for record in records):
        return "trains nothing"
    return policy_cost(cell, records, cost) if borrowed(records) else 0.0


def policy_cost(cell: CellRecord, records: Sequence[EvaluationRecord], cost: Cost) -> float | str:
    """Return the mean cost of one of a cell's policies: of all stages that left one, over how many it has.

    Args:
        cell: A finished cell.
        records: How it answers preferences; each weighs all of its policies.
        cost: Of a stage.
    """
    trained = [stage for stage in cell.stages if stage.adapters]
    policies = max(len(record.expert_weights) for record in records)
    if not trained or not policies:
        return "has no record of a policy that was trained for a preference"
    return stage_sum(trained, cost) / policies


def newcomers(cell: CellRecord, task: TaskInfo) -> list[EvaluationRecord] | str:
    """Return how a cell answers preferences it was not given; without such, those it has no policy of their own for."""
    if task.unseen.any():
        return answers(cell, task, task.unseen)
    records = answers(cell, task)
    if isinstance(records, str):
        return records
    others = [record for record in records if record.answer != "exact"]
    return others or "has no answer to a preference that it was not given: the study has no unseen ones"


def borrowed(records: Sequence[EvaluationRecord]) -> int:
    """Return how many preferences the policy of another one answers."""
    return sum(record.answer in NEIGHBOURS for record in records)
