"""Which runs the stages of a study are: one a trajectory, however many cells and lengths share it."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from paretune.core.stages import Stage
from paretune.core.task import Task
from paretune.tracking import Plain, TrackedRun

UNSAFE = re.compile(r"[^\w.,=+-]")  # in a folder's name, which a run's may become; objectives have any letters
LONGEST_WEIGHTS = 60  # letters of a run's name for what it is trained for; its settings say it in any case


@dataclass(frozen=True)
class TrackedStage:
    """A stage that is trained.

    Attributes:
        stage: The stage.
        task: Its task instance.
        methods: Labels of those that use it.
    """

    stage: Stage
    task: Task
    methods: Collection[str] = field(default_factory=tuple)


def tracked_runs(project: str, folder: Path, stages: Iterable[TrackedStage]) -> dict[str, TrackedRun]:
    """Return the runs of stages by key.

    Args:
        project: What they belong to.
        folder: Where trackers put files of their own.
        stages: Several lengths of one trajectory may be among them.
    """
    lengths: dict[str, list[TrackedStage]] = {}
    for each in stages:
        lengths.setdefault(each.stage.trajectory_key(each.task), []).append(each)
    return {key: _run(key, project, folder, members) for key, members in lengths.items()}


def _run(key: str, project: str, folder: Path, members: list[TrackedStage]) -> TrackedRun:
    longest = max(members, key=lambda each: each.stage.completions)
    stage, task = longest.stage, longest.task
    weights = _weights(stage, task)
    wanted = ",".join(f"{name}={weight:.3g}" for name, weight in weights.items() if weight)
    parts = [task.name, f"s{stage.seed}", stage.kind, *([wanted] if 0 < len(wanted) <= LONGEST_WEIGHTS else [])]
    config = {
        "task": task.name,
        "kind": stage.kind,
        "seed": stage.seed,
        "completions": stage.completions,
        "methods": ", ".join(sorted({label for each in members for label in each.methods})),
        "objectives": ", ".join(task.objective_names),
        "beta": task.beta,
        "key": key,
        **{f"objective_weights.{name}": weight for name, weight in weights.items()},
        **dict(_flat(stage.settings)),
    }
    name = UNSAFE.sub("_", "-".join([*parts, key[:8]]))
    return TrackedRun(key, name, project, config, folder, tuple(task.objective_names), task.beta)


def _weights(stage: Stage, task: Task) -> dict[str, float]:
    """Return what a stage's one policy is trained for, by objective; empty where that is no such thing."""
    given = stage.member.get("objective_weights")
    names = task.objective_names
    if not isinstance(given, (list, tuple)) or len(given) != len(names):
        return {}
    return {name: float(weight) for name, weight in zip(names, given, strict=True) if isinstance(weight, (int, float))}


def _flat(settings: Mapping[str, object], before: str = "") -> Iterator[tuple[str, Plain]]:
    """Yield settings in one level, dots for nested ones, lists as JSON."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        elif value is None or isinstance(value, (str, int, float)):
            yield f"{before}{name}", value
        else:
            yield f"{before}{name}", json.dumps(value, default=str)
