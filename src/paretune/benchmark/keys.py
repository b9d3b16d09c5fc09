"""The two keys of a cell: what its training depends on, and what its evaluation adds."""

from __future__ import annotations

from collections.abc import Sequence

from paretune.benchmark.entries import MethodEntry
from paretune.core.digests import KEY_VERSION, digest
from paretune.core.preferences import FloatArray
from paretune.core.stages import Stage
from paretune.core.task import Task
from paretune.core.user_code import loaded_code, references_in
from paretune.records.outcomes import front_divisions


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
            "method": entry.source if isinstance(entry.version, int) else entry.source.rpartition(":")[2],
            "version": entry.version,
            "settings": dict(entry.settings),
            "budget": budget,
            "seed": seed,
            "stages": [stage.key(task) for stage in stages],
        }
    )


def evaluation_key(training: str, task: Task, given: FloatArray, preferences: FloatArray, decoding: object) -> str:
    """Digest what the evaluation of a cell adds to its training key.

    Args:
        training: Its training key.
        task: Its task instance: test prompts, audit objectives and the versions of all rewards.
        given: Preferences the method was given, `[M, K]`.
        preferences: All preferences evaluated, `[M, K]`.
        decoding: Plain data: temperature, samples, prompts.
    """
    return digest(
        {
            "key_version": KEY_VERSION,
            "training": training,
            "training_preferences": given.tolist(),
            "preferences": preferences.tolist(),
            "task": task.evaluation_key(),
            "decoding": decoding,
        }
    )


def sampling_key(training: str, task: Task, decoding: object) -> str:
    """Digest what a cell's completions depend on, of one preference: neither rewards nor other preferences.

    Args:
        training: Its training key.
        task: Its task instance.
        decoding: Plain data: temperature, samples, prompts.
    """
    return digest({"training": training, "test": digest(list(task.splits["test"])), "decoding": decoding})


def reference_sampling_key(task: Task, decoding: object) -> str:
    """Digest what the base model's completions depend on."""
    return digest(
        {
            "key_version": KEY_VERSION,
            "test": digest(list(task.splits["test"])),
            "model": task.model_digest,
            **task.prompt_format.plain(),
            "max_prompt_tokens": task.max_prompt_tokens,
            "max_completion_tokens": task.max_completion_tokens,
            "decoding": decoding,
        }
    )


def truth_key(task: Task, decoding: object, preferences: FloatArray) -> str:
    """Digest what decides which outcomes can be reached, where completions can be listed."""
    return digest(
        {
            "sampling": reference_sampling_key(task, decoding),
            "objectives": [objective.key() for objective in task.objectives],
            "preferences": preferences.tolist(),
            "beta": task.beta,
            "front_divisions": front_divisions(len(task.objectives)),
        }
    )


def reference_key(task: Task, decoding: object, preferences: FloatArray) -> str:
    """Digest what the evaluation of the base model depends on.

    Where completions can be listed, the optimum for each of the preferences `[M, K]` and the front are part of it.
    """
    return digest(
        {
            "sampling": reference_sampling_key(task, decoding),
            "rewards": [objective.key() for objective in (*task.objectives, *task.audit)],
            "truth": truth_key(task, decoding, preferences) if task.enumeration is not None else None,
        }
    )


def cell_name(task: str, method: str, budget: int, seed: int, training: str) -> str:
    """Return the readable folder name of a cell."""
    return f"{task}-{method}-{budget}-s{seed}-{training[:8]}"
