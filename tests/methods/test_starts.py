"""Starts that are found by outer steps: whole steps stay, whatever happens between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import set_runs
from paretune.core.errors import BudgetError, ConfigError
from paretune.core.preferences import das_dennis
from paretune.core.stages import Stage, StageContext, in_order
from paretune.core.task import Task
from paretune.methods import resolve_method
from paretune.methods.meta_policy import bilevel, reptile
from paretune.methods.meta_policy.starts import StartSettings

RUNS = {"reptile": reptile.train_start, "bilevel": bilevel.train_start}
SMALL = {
    "rank": 2, "group_size": 4, "completions_per_update": 8, "learning_rate": 3e-2, "epochs": 1, "tasks": 2,
    "inner_updates": 1, "completions_each": 32,
}  # fmt: skip


def start_of(name: str, task: Task, completions: int) -> Stage:
    """Return the stage of a method's start, with a length of its own."""
    method = resolve_method(name)
    stage = method(method.Settings(**SMALL)).stages(task, das_dennis(2, 2), 64, 0)[0]
    return replace(stage, completions=completions)


@pytest.fixture(params=RUNS)
def named(request: pytest.FixtureRequest) -> tuple[str, Callable[[StageContext], None]]:
    return request.param, RUNS[request.param]


def test_a_kill_within_an_outer_step_changes_nothing(named: Any, task: Task, tmp_path: Path) -> None:
    """A whole step reports two inner trainings, and bilevel both validation batches in a third call."""
    name, run = named
    calls = 3 if name == "reptile" else 6  # the first and the last of the second step
    set_runs.check_that_a_kill_changes_nothing(run, start_of(name, task, 76), task, tmp_path, calls)


def test_lengths_of_one_run_are_those_of_runs_of_their_own(named: Any, task: Task, tmp_path: Path) -> None:
    """Two lengths end within the same outer step, one behind it; no completion of the shorter ones is lost to it."""
    name, run = named
    stages = [start_of(name, task, length) for length in (4, 12, 40)]
    together = set_runs.run(run, tmp_path / "together", stages, task)
    for stage, found in zip(stages, together, strict=True):
        (alone,) = set_runs.run(run, tmp_path / str(stage.completions), [stage], task)
        assert set_runs.contents(found) == set_runs.contents(alone)
        assert found.ledger.counts == alone.ledger.counts
        assert found.ledger.completions == stage.completions


def test_what_a_shorter_length_alone_makes_is_told_to_nobody(named: Any, task: Task, tmp_path: Path) -> None:
    """Behind whole steps of 16 or 32 completions: a longer run makes them anew."""
    name, run = named
    stages = [start_of(name, task, length) for length in (12, 40)]
    told, events = set_runs.reported(run, tmp_path, stages, task)
    learned = sum(event.get("completions", 0) for event in events)
    assert told == 40
    assert learned == (40 if name == "reptile" else 16 + 4)  # of 32 and of 8: the other half is for validation


@pytest.mark.parametrize("name", RUNS)
def test_start_and_adapted_policies_share_the_budget(name: str, task: Task) -> None:
    method = resolve_method(name)
    settings = method.Settings(group_size=4, completions_per_update=16, completions_each=32, meta_share=0.4)
    start, *adapted = method(settings).stages(task, das_dennis(2, 2), 202, 0)
    assert (start.kind, start.completions, start.version) == (name, 80, 1)  # .4 of 202 are 80.8
    assert [stage.completions for stage in adapted] == [40, 40, 40]  # of 122: 120 in whole groups
    assert all(stage.needs == (start,) for stage in adapted)
    assert sum(stage.completions for stage in in_order((start, *adapted), task)) == 200


def test_what_cannot_be_planned_is_refused(task: Task) -> None:
    for wrong, message in (
        ({"meta_share": 1.0}, "meta_share must lie between 0 and 1"),
        ({"tasks": 0}, "tasks and inner_updates must be at least 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            StartSettings(**wrong)
    for name in RUNS:
        method = resolve_method(name)
        with pytest.raises(ConfigError, match="advantages must be made without greedy completions in outer steps"):
            method(method.Settings(advantages="self_critical")).stages(task, das_dennis(2, 2), 640, 0)
        with pytest.raises(BudgetError, match="budget must give the start and a policy a group of 8"):
            method(method.Settings()).stages(task, das_dennis(2, 2), 15, 0)
