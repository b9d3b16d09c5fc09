"""Tables of what is measured on request, made up for a study of `builders.synthetic_study`: `import measured_tables`.

`with_measured(study)` gives every finished cell the tables `adaptation`, `scaling` and `attribution`, as their
measurements write them, and adds the row `base` from which training from scratch is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from builders import cell
from paretune.core.protocols import REFERENCE
from paretune.records.study import CellRecord, StudyRecords, TaskInfo

LENGTHS = (0, 64, 256, 1024)
EXPERTS = 3  # as many as a rank correlation needs


def with_measured(study: StudyRecords) -> StudyRecords:
    """Return a study in which everything was measured that a study may ask for."""
    done = [_measured(each, study.tasks[each.task]) if each.state == "done" else each for each in study.cells]
    seeds = {(each.task, each.seed, each.budget_completions): each for each in done}
    base = [
        replace(
            cell("base", seed, task=task, budget=budget),
            family=REFERENCE,
            measured={"adaptation": _adaptation(study.tasks[task], 0.3, budget)},
        )
        for task, seed, budget in seeds
    ]
    return replace(study, cells=(*done, *base))


def _measured(made: CellRecord, task: TaskInfo) -> CellRecord:
    start = 0.4 + 0.01 * made.seed + 0.02 * len(made.method)  # another one for each method and seed
    tables = {
        "adaptation": _adaptation(task, start, made.budget_completions),
        "scaling": _scaling(task, start),
        "attribution": _attribution(task, start),
    }
    return replace(made, measured=tables)


def _user(value: float, preference: Sequence[float] = ()) -> dict[str, Any]:
    return {"preference": list(preference), "utility": value, "J": value - 0.05}


def _adaptation(task: TaskInfo, start: float, budget: int) -> dict[str, Any]:
    """A curve for each unseen preference, that reaches most of what training from scratch does in the end."""
    curve = [
        {"asked": asked, "completions": float(asked), **_user(min(start + 0.1 * place, 0.7))}
        for place, asked in enumerate((*LENGTHS, budget))
    ]
    unseen = task.preferences[task.unseen].tolist()
    return {"preferences": [{"preference": each, "curve": curve, "reason": ""} for each in unseen], "cost": {}}


def _scaling(task: TaskInfo, start: float) -> dict[str, Any]:
    (unseen, *_) = task.preferences[task.unseen].tolist()
    old = [{"base": _user(0.3), "before": _user(start), "after": _user(start - 0.01)}] * len(task.trained)
    spent = {"completions": 500.0, "seconds": 3.0, "parameters": 640, "reason": ""}
    return {
        "objective": {
            **spent, "how": "modular", "experts": EXPERTS, "kept": EXPERTS, "trained": 1, "old": old,
            "new": {"base": _user(0.3), "after": _user(0.6)},
        },
        "preference": {
            **spent, "completions": 0.0, "trained": 0, "before": _user(start, unseen), "after": _user(start, unseen),
        },
        "cost": {},
    }  # fmt: skip


def _attribution(task: TaskInfo, start: float) -> dict[str, Any]:
    names, count = [each.name for each in task.trained], len(task.trained)
    columns = [*names, "KL", "utility"]
    shares = [[start * (row + 1) / (column + 3) for column in range(len(columns))] for row in range(EXPERTS)]
    point = {
        "at": "equal weights", "preference": [1 / count] * count, "experts": names[:EXPERTS],
        "expert_weights": [0.2, 0.3, 0.5], "coalitions": 2**EXPERTS, "base": [0.3] * len(columns),
        "policy": [0.5] * len(columns), "shapley": shares, "standard_error": [[0.01] * len(columns)] * EXPERTS,
        "order_error": None, "removal": [[0.9 * each for each in row] for row in shares],
        "prompts": [task.test_prompts] * len(columns), "reason": "",
    }  # fmt: skip
    changes = [[[start * (row - column) for column in range(count + 1)] for row in range(count)]] * 2
    use = {
        "at": "equal weights", "experts": names[:EXPERTS], "blocks": [0, 1], "positions": [[1, 1], [2, 2]],
        "mean": [0.5, 0.3, 0.2], "by_block": [[0.5, 0.3, 0.2]] * 2, "by_position": [[0.5, 0.3, 0.2]] * 2,
        "spread": [0.1] * EXPERTS, "entropy": 0.8,
    }  # fmt: skip
    return {
        "columns": columns, "scores": "estimated", "points": [point],
        "sensitivity": {
            "steps": [0.1, 0.2], "changes": changes, "standard_error": changes, "same_policy": [[False] * count] * 2,
            "reason": "",
        },
        "gate": {"points": [use], "reason": ""},
        "training": {"shares": [1 / count] * count, "conflicts": [0.1] * count, "conflicts_reason": ""},
        "cost": {"seconds": 1.0, "policies": 10, "completions": 0},
    }  # fmt: skip
