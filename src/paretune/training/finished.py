"""Stages on disk: as plain data, what a finished one left, and which of them a longer run can go on from."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from paretune.core.digests import bytes_digest
from paretune.core.errors import RecordError
from paretune.core.ledger import Ledger
from paretune.core.stages import Artefacts, Stage, StageResult
from paretune.core.task import Task
from paretune.records.files import DONE, check_sealed, damaged_files, read_json, read_marker, to_json
from paretune.records.layout import stage_folder
from paretune.records.writing import stage_record, write_stage

STAGE, CHECKPOINT = "stage.json", "checkpoint"


def stage_to_plain(stage: Stage) -> dict[str, Any]:
    """Return a stage as plain data for JSON."""
    return {
        "kind": stage.kind,
        "run": stage.run,
        "settings": dict(stage.settings),
        "member": dict(stage.member),
        "needs": [stage_to_plain(need) for need in stage.needs],
        "completions": stage.completions,
        "seed": stage.seed,
        "version": stage.version,
        "enumerated": stage.enumerated,
    }


def stage_from_plain(data: Mapping[str, Any]) -> Stage:
    """Rebuild a stage from `stage_to_plain`."""
    return Stage(**{**data, "needs": tuple(stage_from_plain(need) for need in data["needs"])})


def stage_result(root: Path, stage: Stage, task: Task) -> StageResult:
    """Read what a finished stage of a study left.

    Raises:
        RecordError: If it is not finished, or its files are damaged.
    """
    key = stage.key(task)
    folder = stage_folder(root, key)
    check_sealed(folder)
    ledger, done = Ledger.from_state(read_json(folder / "ledger.json")), read_marker(folder)
    return StageResult(
        stage=stage,
        key=key,
        folder=folder,
        artefacts=Artefacts({name: folder / name for name in done["artefacts"]}, f"{stage.kind} {key}"),
        values=done["values"],
        ledger=ledger,
        seconds=math.fsum(ledger.seconds.values()),
    )


def stage_trouble(root: Path, stage: Stage, task: Task) -> tuple[bool, str]:
    """Say whether a stage has to be trained, and what has happened to its files.

    Returns:
        Whether it has to be, and one sentence on a file that is damaged; empty where there is none.
    """
    folder = stage_folder(root, stage.key(task))
    name = f"stages/{folder.name}"
    if not folder.is_dir():
        return True, ""
    try:
        damaged = damaged_files(folder)
        marker = read_marker(folder)
        written = to_json(folder / STAGE, stage_record(stage, task)).encode()
        if damaged.keys() == {STAGE} and bytes_digest(written) == marker["files"][STAGE]["digest"]:
            return False, f"{name}: {STAGE} {damaged[STAGE]}. It is written again."
        for file, trouble in damaged.items():
            return True, f"{name}: {file} {trouble}. The stage is trained again."
        for file, trouble in damaged_files(folder, optional=True).items():
            cost = "A longer run of this stage would miss it." if file.startswith(CHECKPOINT) else "It is a log."
            return False, f"{name}: {file} {trouble}, and is removed. {cost}"
    except RecordError:
        return True, f"{name}: {DONE} is missing or damaged. The stage is trained again."
    return False, ""


def mend_stage(root: Path, stage: Stage, task: Task) -> None:
    """Write the files of a finished stage again that can be known, and remove those that it is finished without."""
    folder = stage_folder(root, stage.key(task))
    for file in damaged_files(folder, optional=True):
        (folder / file).unlink()
    if damaged_files(folder, below=STAGE):
        write_stage(root, stage, task)


def finished_prefixes(root: Path, wanted: Collection[str] | None = None) -> dict[str, list[tuple[int, str]]]:
    """Return, for each trajectory, length and key of finished stages that kept a checkpoint and are whole.

    Args:
        root: The study's folder.
        wanted: Keys of trajectories; checkpoints of others, which can be large, are not looked at. None for all.
    """
    found: dict[str, list[tuple[int, str]]] = {}
    for done in sorted(root.glob(f"stages/*/{DONE}")):
        folder = done.parent
        try:
            kept = any(
                name.startswith(f"{CHECKPOINT}/") and (folder / name).exists()
                for name in read_marker(folder)["optional"]
            )
            if not kept or any(damaged_files(folder, below=name) for name in (STAGE, "ledger.json")):
                continue
            record = read_json(folder / STAGE)
            trajectory = record["trajectory"]
            if wanted is not None and trajectory not in wanted:
                continue
            if damaged_files(folder, optional=True, below=CHECKPOINT):
                continue
        except RecordError:  # a marker that is none: the stage is trained again
            continue
        found.setdefault(trajectory, []).append((int(record["completions"]), folder.name))
    return found


def longest_prefix(prefixes: Mapping[str, Sequence[tuple[int, str]]], stage: Stage, task: Task) -> tuple[int, str]:
    """Return length and key of the longest finished run that a stage can extend; 0 and no key where there is none."""
    shorter = [each for each in prefixes.get(stage.trajectory_key(task), ()) if each[0] < stage.completions]
    return max(shorter, default=(0, ""))
