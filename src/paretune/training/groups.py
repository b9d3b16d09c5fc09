"""Which missing stages are trained together, and the folders that remember it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from paretune.core.digests import digest
from paretune.core.errors import RecordError
from paretune.core.stages import Stage, in_order
from paretune.core.task import Task
from paretune.records.files import SCHEMA_VERSION, read_signed, write_signed
from paretune.records.states import remove_damaged_measured, remove_state, state_trouble
from paretune.training.finished import CHECKPOINT, stage_from_plain, stage_to_plain

logger = logging.getLogger(__name__)
FILE, SPENT = "group.json", "spent.json"
StageState = Literal["finished", "unfinished", "new"]
POPULATION = 32  # trajectories trained in one batch; bounds a worker's memory


@dataclass(frozen=True)
class PlannedStage:
    """A stage that is asked for, once, however many cells use it.

    Attributes:
        key: Its digest.
        stage: The stage.
        task: Task instance it trains on.
        seed: Seed that names the instance.
        state: `finished`, `unfinished` (a killed run was at it) or `new`.
        cells: Names of the cells that use it.
        missing: Completions still to be made for it, beyond what a finished shorter run saves.
        trouble: What has happened to a file of it, and what that costs; empty where nothing has.
    """

    key: str
    stage: Stage
    task: Task
    seed: int
    state: StageState
    cells: tuple[str, ...]
    missing: int
    trouble: str = ""


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


def groups_folder(root: Path) -> Path:
    """Return where populations under way lie."""
    return root / "groups"


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
        write_spent(folder, spent, {})
    data = {"keys": keys, "alone": alone, "stages": [stage_to_plain(each.stage) for each in ordered]}
    write_signed(folder / FILE, {"schema_version": SCHEMA_VERSION, **data})
    return Group(folder, ordered[0].task, ordered[0].seed, keys, alone)


def begun_groups(root: Path, missing: Mapping[str, PlannedStage], keep_others: bool = False) -> list[Group]:
    """Return populations a killed run was at, with the members they had, so that resumed equals uninterrupted.

    Those that nobody asks for any more are removed. Of files that are damaged a warning says what they cost.

    Args:
        root: The study's folder.
        missing: Planned stages that are not finished.
        keep_others: Leave the others alone: during a sweep nobody knows yet who will ask for them.
    """
    groups = []
    for folder in sorted(groups_folder(root).glob("*")):
        keys = group_keys(folder)
        if not keys:  # never quite begun, or damaged
            if (folder / FILE).exists():
                logger.warning("groups/%s: %s is damaged. Its stages are trained from their start.", folder.name, FILE)
            shutil.rmtree(folder)
            continue
        group = _read_group(folder, [missing[key] for key in keys if key in missing])
        if group is not None:
            _remove_damaged(folder)
            groups.append(group)
        elif not keep_others:
            shutil.rmtree(folder)
    return groups


def group_keys(folder: Path) -> list[str]:
    """Return the keys of the stages of a population under way; none where its file is missing or damaged."""
    try:
        return list(read_signed(folder / FILE)["keys"])
    except RecordError:
        return []


def _read_group(folder: Path, wanted: Sequence[PlannedStage]) -> Group | None:
    if not wanted:
        return None
    data = read_signed(folder / FILE)
    keys = [stage_from_plain(each).key(wanted[0].task) for each in data["stages"]]
    if keys != data["keys"]:
        return None  # written by a version with other keys
    return Group(folder, wanted[0].task, wanted[0].seed, tuple(keys), data["alone"])


def read_spent(group: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Return what attempts at a population have spent, and what the states they went on from had, by trajectory.

    Raises:
        RecordError: If the file is damaged.
    """
    file = group / SPENT
    if not file.exists():
        return {"spent": {}, "inherited": {}}
    return read_signed(file)


def write_spent(group: Path, spent: Mapping[str, object], inherited: Mapping[str, object]) -> None:
    """Write what attempts have spent, and what the states they went on from had, by trajectory."""
    write_signed(group / SPENT, {"schema_version": SCHEMA_VERSION, "spent": dict(spent), "inherited": dict(inherited)})


def _remove_damaged(folder: Path) -> None:
    """Remove what a population under way can do without, where it is damaged, and say what that costs."""
    try:
        read_spent(folder)
    except RecordError:
        (folder / SPENT).unlink()
        logger.warning(
            "groups/%s: %s is damaged. Work that earlier kills have lost is missing in the counts of repeated work.",
            folder.name, SPENT,
        )  # fmt: skip
    for state in sorted((folder / CHECKPOINT).glob("*.safetensors")):
        if remove_damaged_measured(state):
            logger.warning(
                "groups/%s: seconds measured before a kill are damaged. Those of its stages are too few.", folder.name
            )
        trouble = state_trouble(state)
        if trouble:
            remove_state(state)
            logger.warning(
                "groups/%s: %s %s. Its stages are trained from their start.", folder.name, state.name, trouble
            )
