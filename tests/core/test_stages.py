from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from paretune.core.stages import Stage, adapter_names, in_order
from paretune.core.task import Objective, Task

ROW = {"prompt": "a", "prompt_id": "0"}
TASK = Task(
    name="t", source="t", model="m", model_digest="d", template="{prompt}",
    splits={"train": (ROW,), "development": (ROW,), "test": (ROW,)},
    objectives=(Objective("x", "m:x"), Objective("y", "m:y")), reference_point=(0.0, 0.0),
)  # fmt: skip
STAGE = Stage(
    "expert", "m:run", {"rate": 0.1}, member={"objective_weights": [1.0, 0.0]}, completions=64, seed=1
)  # fmt: skip


def keys(stage: Stage, task: Task = TASK) -> tuple[str, str, str]:
    return stage.shape_key(task), stage.trajectory_key(task), stage.key(task)


def test_a_longer_run_keeps_shape_and_trajectory_and_gets_its_own_folder() -> None:
    (shape, trajectory, key), longer = keys(STAGE), keys(replace(STAGE, completions=128))
    assert longer[:2] == (shape, trajectory)
    assert longer[2] != key


def test_adapters_are_listed_in_the_order_of_their_numbers() -> None:
    names = ["gate.safetensors", *(f"experts/{number:03d}" for number in (1000, 999, 2)), "experts.json", "adapters"]
    assert adapter_names(names) == ["experts/002", "experts/999", "experts/1000"]
    assert adapter_names(["adapter"]) == ["adapter"]


def test_an_estimate_of_its_time_is_no_part_of_what_a_stage_is() -> None:
    assert keys(replace(STAGE, enumerated=100)) == keys(STAGE)


@pytest.mark.parametrize("change", [{"seed": 2}, {"member": {"objective_weights": [0.0, 1.0]}}])
def test_members_of_a_population_share_the_shape_only(change: dict[str, Any]) -> None:
    shape, trajectory, key = keys(replace(STAGE, **change))
    assert shape == STAGE.shape_key(TASK)
    assert trajectory != STAGE.trajectory_key(TASK)
    assert key != STAGE.key(TASK)


@pytest.mark.parametrize(
    "change",
    [{"kind": "gate"}, {"run": "m:other"}, {"version": 2}, {"settings": {"rate": 0.2}}, {"needs": (STAGE,)}],
)
def test_what_shapes_the_training_changes_all_keys(change: dict[str, Any]) -> None:
    assert not set(keys(replace(STAGE, **change))) & set(keys(STAGE))


def test_a_stage_depends_on_how_long_what_it_needs_was_trained() -> None:
    one, other = (Stage("gate", "m:gate", {}, needs=(replace(STAGE, completions=n),)) for n in (64, 128))
    assert not set(keys(one)) & set(keys(other))


@pytest.mark.parametrize(
    "change",
    [
        {"model_digest": "e"},
        {"template": "Client: {prompt}"},
        {"beta": 0.1},
        {"max_completion_tokens": 8},
        {"max_prompt_tokens": 8},
        {"objectives": (Objective("x", "m:x"), Objective("y", "m:y", version=2))},
        {"objectives": (Objective("y", "m:y"), Objective("x", "m:x"))},
        {"splits": {**TASK.splits, "train": ()}},
        {"splits": {**TASK.splits, "development": ()}},
    ],
)
def test_what_training_depends_on_in_a_task_changes_all_keys(change: dict[str, Any]) -> None:
    assert not set(keys(STAGE, replace(TASK, **change))) & set(keys(STAGE))


@pytest.mark.parametrize(
    "change",
    [
        {"name": "renamed"},
        {"model": "/elsewhere/m"},
        {"reference_point": (-1.0, -1.0)},
        {"audit": (Objective("z", "m:z"),)},
        {"splits": {**TASK.splits, "test": ()}},
        {"objectives": (Objective("x", "m:x", pass_threshold=0.5), Objective("y", "m:y"))},
    ],
)
def test_what_only_evaluation_depends_on_changes_no_key(change: dict[str, Any]) -> None:
    assert keys(STAGE, replace(TASK, **change)) == keys(STAGE)


def test_stages_are_listed_once_and_after_what_they_need() -> None:
    other = replace(STAGE, seed=2)
    measured = Stage("measurement", "m:measure", {}, needs=(STAGE, other))
    gate = Stage("gate", "m:gate", {}, needs=(measured, STAGE))
    again = replace(STAGE)
    assert in_order([gate, again, other], TASK) == [STAGE, other, measured, gate]
