"""Checkpoints of finished stages: which of them a longer run may still start from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from paretune.records.files import is_done
from paretune.records.layout import stage_folder
from paretune.training.finished import CHECKPOINT, finished_prefixes, longest_prefix
from paretune.training.groups import PlannedStage

GONE = ".checkpoint.gone"  # one that is being removed


def remove_checkpoints(root: Path, stages: Iterable[PlannedStage]) -> None:
    """Remove the checkpoints that no run will start from.

    Of each trajectory the longest finished length keeps its own, for a larger budget, and so does what a stage that is
    still missing starts from.

    Args:
        root: The study's folder.
        stages: All stages of the study.
    """
    prefixes = finished_prefixes(root)
    kept = {max(lengths)[1] for lengths in prefixes.values()}
    for each in stages:
        if each.state != "finished" and not is_done(stage_folder(root, each.key)):
            kept.add(longest_prefix(prefixes, each.stage, each.task)[1])
    for key in {key for lengths in prefixes.values() for _, key in lengths} - kept:
        folder = stage_folder(root, key)
        os.rename(folder / CHECKPOINT, folder / GONE)  # at once: half a checkpoint would look like a whole one
    for gone in root.glob(f"stages/*/{GONE}"):
        shutil.rmtree(gone)
