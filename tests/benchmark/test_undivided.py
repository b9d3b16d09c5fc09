"""How many policies a plan says that each row trains, counted on paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import micro_task
from paretune.benchmark.plan import plan
from paretune.benchmark.summary import plan_text
from paretune.benchmark.undivided import trained_policies
from paretune.core.preferences import das_dennis
from paretune.core.stages import in_order
from paretune.core.task import Task
from paretune.methods.entries import method_entry


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return micro_task.load(tmp_path_factory.mktemp("task"))


@pytest.mark.parametrize(
    ("method", "settings", "policies"),
    [
        ("mixture_of_experts", {}, 2),  # one for each of two objectives
        ("mixture_of_experts", {"size": 3}, 3),
        ("mixture_of_experts", {"size": 4, "gate": "none"}, 4),
        ("mixture_of_experts", {"experts": "single_objective", "trains": "gate"}, 2),  # experts; a gate is none
        ("rewarded_soups", {}, 2),
        ("dynaopt", {"mode": "faithful"}, 1),
    ],
)
def test_a_bank_counts_as_many_policies_as_it_has_experts(
    task: Task, method: str, settings: dict[str, Any], policies: int
) -> None:
    stages = method_entry(method, settings, method).method.stages(task, das_dennis(2, 2), 6000, 0)
    assert trained_policies(in_order(stages, task), task) == policies


def test_a_plan_tells_the_size_of_a_bank(task: Task, tmp_path: Path) -> None:
    study = {
        "tasks": [task.source],
        "methods": {"two": {"method": "mixture_of_experts"}, "three": {"method": "mixture_of_experts", "size": 3}},
        "budget": {"completions": 6000},
        "seeds": 1,
    }
    planned = plan(study, tmp_path / "out")
    policies = {cell.entry.label: cell.policies for cell in planned.cells}
    assert (policies["two"], policies["three"]) == (2, 3)
    assert "experts:  two 2, three 3 (combined to a policy for each preference; " in plan_text(planned)
