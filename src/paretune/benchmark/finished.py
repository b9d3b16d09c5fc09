"""Stages on disk: as plain data, what a finished one left, and which of them a longer run can go on from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paretune.core.errors import RecordError
from paretune.core.ledger import Ledger
from paretune.core.stages import Artefacts, Stage, StageResult
from paretune.core.task import Task
from paretune.records.files import DONE, read_json
from paretune.records.layout import stage_folder


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
    ledger = Ledger.from_state(read_json(folder / "ledger.json"))
    done = read_json(folder / DONE)
    if "artefacts" not in done:
        raise RecordError(f"{folder / DONE} must list the stage's artefacts, got none listed. Remove {folder}.")
    return StageResult(
        stage=stage,
        key=key,
        folder=folder,
        artefacts=Artefacts({name: folder / name for name in done["artefacts"]}, f"{stage.kind} {key}"),
        values=done["values"],
        ledger=ledger,
        seconds=math.fsum(ledger.seconds.values()),
    )


def finished_prefixes(root: Path) -> dict[str, list[tuple[int, str]]]:
    """Return, for each trajectory, length and key of finished stages that kept a checkpoint."""
    found: dict[str, list[tuple[int, str]]] = {}
    for done in sorted(root.glob(f"stages/*/{DONE}")):
        if (done.parent / "checkpoint").is_dir():
            record = read_json(done.parent / "stage.json")
            found.setdefault(record["trajectory"], []).append((int(record["completions"]), done.parent.name))
    return found


def longest_prefix(prefixes: Mapping[str, Sequence[tuple[int, str]]], stage: Stage, task: Task) -> tuple[int, str]:
    """Return length and key of the longest finished run that a stage can extend; 0 and no key where there is none."""
    shorter = [each for each in prefixes.get(stage.trajectory_key(task), ()) if each[0] < stage.completions]
    return max(shorter, default=(0, ""))
