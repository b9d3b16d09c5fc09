"""Halves of the training prompts, told apart by a feature: which prompts an expert of one half is trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paretune.core.errors import TaskError
from paretune.core.task import Row, Task

HALVES = ("below", "above")


def above(task: Task, rows: Sequence[Row], split_by: str = "", threshold: float = 0.0) -> NDArray[np.bool_]:
    """Return whether the feature of each prompt is at or above a threshold, `[N]`.

    Args:
        task: What knows the feature.
        rows: The prompts.
        split_by: A column of numbers; where none is named, the task's own feature.
        threshold: Where the halves meet.

    Raises:
        TaskError: If a prompt has no such number, or the task no feature of its own.
    """
    return np.asarray(task.split_feature(rows, split_by) >= threshold)


def half_of_prompts(half: str, split_by: str = "", threshold: float = 0.0) -> dict[str, object]:
    """Return how a stage's member names the prompts of one half: plain data."""
    return {"half": half, "split_by": split_by, "threshold": threshold}


def trained_prompts(task: Task, member: Mapping[str, object]) -> tuple[int, ...] | None:
    """Return the numbers of the training prompts that a stage's member is trained on; None for all of them.

    Raises:
        TaskError: If there is none, or prompts cannot be told apart.
    """
    named: Any = member.get("prompts")
    if named is None:
        return None
    upper = above(task, task.splits["train"], named["split_by"], named["threshold"])
    found = tuple(np.flatnonzero(upper == (named["half"] == "above")).tolist())
    if not found:
        feature = f"column '{named['split_by']}'" if named["split_by"] else "the task's own feature"
        raise TaskError(
            f"both halves of the training prompts of task '{task.name}' must have a prompt, got none {named['half']} "
            f"{named['threshold']:g} in {feature}. Choose another threshold."
        )
    return found
