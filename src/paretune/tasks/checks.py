"""Checks of a task against its model: what is too long is refused, never cut silently."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from paretune.core.checks import user_path
from paretune.core.errors import TaskError
from paretune.core.model_config import context_limit
from paretune.core.printable import brief, is_writable
from paretune.core.task import SPLITS, Task


def model_context(model: str) -> int | None:
    """Return the longest sequence a model folder's configuration allows, in tokens; None where it names no limit.

    A hub id has no folder to read, so it counts as one without a limit.
    """
    file = Path(model) / "config.json"
    if not file.is_file():
        return None
    return context_limit(json.loads(file.read_text(encoding="utf-8")))


def check_context(task: Task, context_tokens: int | None = None) -> None:
    """Check that a prompt and a completion of full length fit the model's context.

    Args:
        task: The task.
        context_tokens: The model's limit; by default what its folder says.

    Raises:
        TaskError: If they do not fit.
    """
    limit = context_tokens or model_context(task.model)
    wanted = task.max_prompt_tokens + task.max_completion_tokens
    if limit is not None and wanted > limit:
        raise TaskError(
            f"max_prompt_tokens + max_completion_tokens of task '{task.name}' must be at most the model's context of "
            f"{limit} tokens, got {task.max_prompt_tokens} + {task.max_completion_tokens} = {wanted}. Lower one, or "
            "take a model with a longer context."
        )


def plain_tokenizer(model: str) -> Callable[..., dict[str, list[list[int]]]] | None:
    """Return the tokenizer of a model folder without the library that runs the model, to count tokens before it loads.

    Returns:
        What `check_prompts` takes; None for a hub id, and where a folder's tokenizer cannot be read alone.
    """
    file = user_path(model) / "tokenizer.json"
    if not file.is_file():
        return None
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception:  # noqa: BLE001  # it raises nothing narrower; loading the model says what is wrong with the file
        return None
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def encode(texts: Sequence[str], **options: object) -> dict[str, list[list[int]]]:
        # one by one: threads that encode_batch starts would warn in every process started after them
        return {"input_ids": [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]}

    return encode


def check_prompts(task: Task, tokenizer: Any, context_tokens: int | None = None) -> None:
    """Check that every prompt, in the task's template, is short enough.

    Args:
        task: The task.
        tokenizer: Of its model.
        context_tokens: The model's limit; by default what its folder says.

    Raises:
        TaskError: If a prompt has no token or more than `max_prompt_tokens`, or prompt and completion of full length
            exceed the context.
    """
    check_context(task, context_tokens)
    for split in SPLITS:
        rows = task.splits[split]
        texts = [task.format_prompt(str(row["prompt"])) for row in rows]
        broken = next((row for row, text in zip(rows, texts, strict=True) if not is_writable(text)), None)
        if broken is not None:
            raise TaskError(
                f"{split} prompt '{broken['prompt_id']}' of task '{task.name}' must be text without half a surrogate "
                f"pair, template included, got {brief(broken['prompt'])}. Correct its encoding, or remove it."
            )
        tokens = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []
        lengths = [len(ids) for ids in tokens]
        long = [index for index, length in enumerate(lengths) if length > task.max_prompt_tokens]
        if long:
            more = f" and {len(long) - 1} more" if len(long) > 1 else ""
            raise TaskError(
                f"{split} prompt '{rows[long[0]]['prompt_id']}' of task '{task.name}' must have at most "
                f"{task.max_prompt_tokens} tokens, template included, got {lengths[long[0]]}{more}. Shorten or remove "
                f"it, or raise max_prompt_tokens (the longest {split} prompt has {max(lengths)})."
            )
        if 0 in lengths:
            raise TaskError(
                f"{split} prompt '{rows[lengths.index(0)]['prompt_id']}' of task '{task.name}' must have at least one "
                "token, got none. Check that the tokenizer knows the prompt's alphabet."
            )
