"""How many policies a budget is divided among, and which methods never divide it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from paretune.benchmark.planned import PlannedCell
from paretune.core.errors import ParetuneError
from paretune.core.stages import Stage, in_order
from paretune.core.task import Task
from paretune.methods.asking import asked_stages
from paretune.methods.banks import BANK


def trained_policies(stages: Iterable[Stage], task: Task) -> int:
    """Return how many policies stages train, where that is known before: 0 of what leaves what it finds, or a gate."""
    return sum(
        _experts(stage, task) if stage.run == BANK and stage.kind == "bank" else int(stage.kind == "expert")
        for stage in stages
    )


def _experts(stage: Stage, task: Task) -> int:
    """Return how many experts a bank has: one for each column of its prior, by default one for each objective."""
    prior: Any = stage.settings.get("prior")
    return len(task.objectives) if prior is None else len(prior[0])


def undivided(cells: Sequence[PlannedCell]) -> list[str]:
    """Return the methods that train one policy, and would with the completions of two, asked for such a plan."""
    alone = {cell.entry.label: cell for cell in cells if cell.policies == 1}
    return [label for label, cell in alone.items() if not _divides(cell)]


def _divides(cell: PlannedCell) -> bool:
    """Whether a cell's method would plan more policies with twice what it says each of them takes."""
    each = cell.entry.settings.get("completions_each")
    if not isinstance(each, int) or len(cell.training_preferences) < 2:
        return True  # nothing to divide among, or nothing that says how: nobody asks
    try:
        asked = asked_stages(cell.entry.method, cell.task, cell.training_preferences, 2 * each, cell.seed)
    except ParetuneError:  # as nobody could run that plan, it tells nothing
        return True
    return trained_policies(in_order(asked, cell.task), cell.task) != 1
