"""Key and name of a cell: what its training depends on."""

from __future__ import annotations

from collections.abc import Sequence

from paretune.core.digests import KEY_VERSION, digest
from paretune.core.stages import Stage
from paretune.core.task import Task
from paretune.core.user_code import loaded_code, references_in
from paretune.methods.entries import MethodEntry


def training_key(task: Task, entry: MethodEntry, budget: int, seed: int, stages: Sequence[Stage]) -> str:
    """Digest what the training of a cell depends on.

    The keys of its stages are part of it, so preferences count exactly where a method's stages depend on them. The code
    of a user that its settings name as `module:name` is part of it, whether it reaches a stage or not.

    Args:
        task: Task instance of the cell.
        entry: Its method.
        budget: Its completions.
        seed: Its seed.
        stages: What the method answered when asked for its stages.
    """
    code = loaded_code(references_in(entry.settings))
    return digest(
        {
            **({"code": code} if code else {}),
            "key_version": KEY_VERSION,
            "task": task.training_key(),
            "judged_on": task.judged_on,  # what members are selected by when they are assembled
            "method": entry.source if isinstance(entry.version, int) else entry.source.rpartition(":")[2],
            "version": entry.version,
            "settings": dict(entry.kept),
            "budget": budget,
            "seed": seed,
            "stages": [stage.key(task) for stage in stages],
        }
    )


def cell_name(task: str, method: str, budget: int, seed: int, training: str) -> str:
    """Return the readable folder name of a cell."""
    return f"{task}-{method}-{budget}-s{seed}-{training[:8]}"
