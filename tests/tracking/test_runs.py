from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import fake_study
from paretune.core.stages import Stage
from paretune.tracking.runs import TrackedStage, tracked_runs

SETTINGS = {"learning_rate": 0.01, "gate": {"level": "block", "layers": [1, 2]}, "start": None}
STAGE = Stage("expert", "fake_study:train", SETTINGS, {"objective_weights": [0.25, 0.75]}, completions=64, seed=3)


def test_lengths_and_methods_of_one_trajectory_are_one_run() -> None:
    task = fake_study.task()
    stages = [
        TrackedStage(STAGE, task, ["soups"]),
        TrackedStage(replace(STAGE, completions=128), task, ["mod"]),
        TrackedStage(replace(STAGE, seed=4), task, ["mod"]),
    ]
    runs = tracked_runs("mine", Path("out"), stages)
    assert set(runs) == {stage.stage.trajectory_key(task) for stage in stages}
    run = runs[STAGE.trajectory_key(task)]
    assert run.name == f"fake-s3-expert-warm=0.25,brief=0.75-{run.key[:8]}"
    assert (run.project, run.folder, run.objectives, run.beta) == ("mine", Path("out"), ("warm", "brief"), task.beta)
    assert run.config == {
        "task": "fake", "kind": "expert", "seed": 3, "completions": 128, "methods": "mod, soups",
        "objectives": "warm, brief", "beta": task.beta, "key": run.key, "objective_weights.warm": 0.25,
        "objective_weights.brief": 0.75, "learning_rate": 0.01, "gate.level": "block", "gate.layers": "[1, 2]",
        "start": None,
    }  # fmt: skip


def test_the_name_is_one_of_a_folder_and_leaves_out_weights_that_are_zero_or_too_many() -> None:
    task = fake_study.task()

    def name(**member: object) -> str:
        (run,) = tracked_runs("mine", Path(), [TrackedStage(replace(STAGE, member=member), task)]).values()
        return run.name.removesuffix(f"-{run.key[:8]}")

    assert name(objective_weights=[1.0, 0.0]) == "fake-s3-expert-warm=1"
    assert name() == name(objective_weights=[[1.0, 0.0], [0.0, 1.0]]) == "fake-s3-expert"
    odd = tuple(replace(each, name=f"../{each.name}*") for each in task.objectives)  # a folder may be called so
    stage = TrackedStage(replace(STAGE, member={"objective_weights": [0.5, 0.5]}), replace(task, objectives=odd))
    (run,) = tracked_runs("mine", Path(), [stage]).values()
    assert run.name == f"fake-s3-expert-.._warm_=0.5,.._brief_=0.5-{run.key[:8]}"
    objectives = tuple(replace(task.objectives[0], name=f"objective_{k}") for k in range(20))
    many = replace(task, objectives=objectives, reference_point=(0.0,) * 20)
    stage = TrackedStage(replace(STAGE, member={"objective_weights": [0.05] * 20}), many)
    (run,) = tracked_runs("mine", Path(), [stage]).values()
    assert run.name == f"fake-s3-expert-{run.key[:8]}"
    assert run.config["objective_weights.objective_19"] == 0.05
