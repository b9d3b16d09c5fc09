"""Which missing stages are trained together, and the folders that remember it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from paretune.benchmark.folder import groups_folder
from paretune.benchmark.planned import PlannedStage
from paretune.benchmark.stages import stage_from_plain, stage_to_plain
from paretune.core.digests import digest
from paretune.core.stages import in_order
from paretune.core.task import Task
from paretune.records.files import read_json, write_json

POPULATION = 32  # trajectories trained in one batch; bounds a worker's memory


@dataclass(frozen=True)
class Group:
    """A population under way.

    Attributes:
        folder: Its folder.
        task: Task instance.
        seed: Seed that names the instance.
        keys: Its members.
        alone: Whether it is the second attempt of one trajectory, after its population failed.
    """

    folder: Path
    task: Task
    seed: int
    keys: tuple[str, ...]
    alone: bool = False


def needs(planned: PlannedStage) -> set[str]:
    """Return the keys of all stages that must be finished before a stage can start."""
    return {need.key(planned.task) for need in in_order([planned.stage], planned.task)} - {planned.key}


def trajectories(members: Sequence[PlannedStage]) -> dict[str, list[PlannedStage]]:
    """Gather lengths of one trajectory, which are trained on one way."""
    gathered: dict[str, list[PlannedStage]] = {}
    for each in members:
        gathered.setdefault(each.stage.trajectory_key(each.task), []).append(each)
    return gathered


def populations(ready: Sequence[PlannedStage], workers: int) -> list[list[PlannedStage]]:
    """Gather stages of equal shape and split each shape evenly over the workers.

    Args:
        ready: Stages whose needs are finished.
        workers: Into how many parts a shape is split, where it has that many trajectories.
    """
    shapes: dict[str, list[PlannedStage]] = {}
    for each in ready:
        shapes.setdefault(each.stage.shape_key(each.task), []).append(each)
    parts = []
    for members in shapes.values():
        longest_first = sorted(
            trajectories(members).values(), key=lambda lengths: -max(each.stage.completions for each in lengths)
        )
        count = max(min(workers, len(longest_first)), -(-len(longest_first) // POPULATION))
        parts += [[each for lengths in longest_first[part::count] for each in lengths] for part in range(count)]
    return parts


def begin_group(
    root: Path,
    members: Sequence[PlannedStage],
    alone: bool = False,
    spent: Mapping[str, object] | None = None,
) -> Group:
    """Make the folder of a new population.

    Args:
        root: The study's folder.
        members: Stages of one shape.
        alone: See `Group`.
        spent: Trajectory -> counts that a failed attempt has spent on it.
    """
    ordered = sorted(members, key=lambda each: (each.stage.completions, each.key))
    keys = tuple(each.key for each in ordered)
    folder = groups_folder(root) / digest(sorted(keys))
    shutil.rmtree(folder, ignore_errors=True)
    if spent:
        write_json(folder / "spent.json", {"spent": spent, "inherited": {}})
    stages = [stage_to_plain(each.stage) for each in ordered]
    write_json(folder / "group.json", {"keys": keys, "alone": alone, "stages": stages})
    return Group(folder, ordered[0].task, ordered[0].seed, keys, alone)


def begun_groups(root: Path, missing: Mapping[str, PlannedStage], keep_others: bool = False) -> list[Group]:
    """Return populations a killed run was at, with the members they had, so that resumed equals uninterrupted.

    Those that nobody asks for any more are removed.

    Args:
        root: The study's folder.
        missing: Planned stages that are not finished.
        keep_others: Leave the others alone: during a sweep nobody knows yet who will ask for them.
    """
    groups = []
    for folder in sorted(groups_folder(root).glob("*")):
        group = _read_group(folder, missing)
        if group is not None:
            groups.append(group)
        elif not keep_others:
            shutil.rmtree(folder)
    return groups


def _read_group(folder: Path, missing: Mapping[str, PlannedStage]) -> Group | None:
    if not (folder / "group.json").is_file():
        return None  # never quite begun
    data = read_json(folder / "group.json")
    wanted = [missing[key] for key in data["keys"] if key in missing]
    if not wanted:
        return None
    keys = [stage_from_plain(each).key(wanted[0].task) for each in data["stages"]]
    if keys != data["keys"]:
        return None  # written by a version with other keys
    return Group(folder, wanted[0].task, wanted[0].seed, tuple(keys), bool(data["alone"]))
