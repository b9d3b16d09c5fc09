"""Running a stage by itself, as a study would, and killing it: `from set_runs import run`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from paretune.core.errors import StopRequested
from paretune.core.stages import Stage, StageContext, StageResult
from paretune.core.task import Task
from paretune.executors.jobs import quiet_link
from paretune.training.context import GroupContext
from paretune.training.finished import stage_result

Run = Callable[[StageContext], None]


def context_of(root: Path, stages: list[Stage], task: Task) -> GroupContext:
    """Return what a run function is given."""
    (group := root / "groups" / "one").mkdir(parents=True, exist_ok=True)
    return GroupContext(task, stages, root, group, quiet_link())


def run(function: Run, root: Path, stages: list[Stage], task: Task) -> list[StageResult]:
    """Train stages and return what they left."""
    function(context_of(root, stages, task))
    return [stage_result(root, stage, task) for stage in stages]


def reported(function: Run, root: Path, stages: list[Stage], task: Task) -> tuple[int, list[dict[str, Any]]]:
    """Train stages and return how many completions were reported, and the events."""
    context, told = context_of(root, stages, task), list[int]()
    changed: Any = context
    changed.progress = lambda completions, message="": told.append(completions)
    function(context)
    lines = (root / "groups" / "one" / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return sum(told), [json.loads(line) for line in lines]


def contents(result: StageResult) -> dict[str, object]:
    """Return tensors, and the front where there is one; the header of a tensor file has its metadata in any order."""
    front = result.folder / "front.json"
    found: dict[str, object] = {"front": front.read_text(encoding="utf-8")} if front.exists() else {}
    for adapter in result.adapters:
        tensors = load_file(adapter / "adapter_model.safetensors")
        found[adapter.name] = {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}
    return found


def check_that_longer_runs_go_on(function: Run, short: Stage, long: Stage, task: Task, root: Path) -> None:
    """Train each alone, then the longer one from the shorter one: the same files, bit for bit."""
    assert short.trajectory_key(task) == long.trajectory_key(task)
    alone = [*run(function, root / "short", [short], task), *run(function, root / "long", [long], task)]
    after = run(function, root / "after", [short], task)
    (root / "after" / "groups" / "one" / "checkpoint").rename(root / "gone")
    after += run(function, root / "after", [long], task)
    for one, other in zip(alone, after, strict=True):
        assert contents(other) == contents(one)
        assert other.ledger.counts == one.ledger.counts


def check_that_a_kill_changes_nothing(function: Run, stage: Stage, task: Task, root: Path, calls: int) -> None:
    """Stop at one of the calls that report progress, resume, and compare with a run that was left alone."""
    assert _stopped_and_resumed(function, stage, task, root, calls).ledger.repeated["completions"] > 0


def check_that_a_stop_loses_nothing(function: Run, stage: Stage, task: Task, root: Path, calls: int) -> None:
    """The same, where all that was made before the stop is kept: nothing is made again."""
    assert _stopped_and_resumed(function, stage, task, root, calls).ledger.repeated.get("completions", 0) == 0


def _stopped_and_resumed(function: Run, stage: Stage, task: Task, root: Path, calls: int) -> StageResult:
    (whole,) = run(function, root / "whole", [stage], task)
    context, left = context_of(root / "killed", [stage], task), [calls]
    progress = context.progress

    def stopped(completions: int, message: str = "") -> None:
        progress(completions, message)
        left[0] -= 1
        if left[0] == 0:
            raise StopRequested

    changed: Any = context
    changed.progress = stopped
    with pytest.raises(StopRequested):
        function(context)
    context.note_spent()  # as is done behind every run function
    (resumed,) = run(function, root / "killed", [stage], task)
    assert contents(resumed) == contents(whole)
    assert resumed.ledger.counts == whole.ledger.counts
    return resumed
