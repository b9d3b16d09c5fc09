"""Checks of a task against its model: what is too long is refused, never cut silently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paretune.core.checks import user_path
from paretune.core.errors import ParetuneError, TaskError
from paretune.core.model_config import context_limit
from paretune.core.printable import brief, is_writable
from paretune.core.prompt_format import PromptEncoder, check_repeatable
from paretune.core.task import SPLITS, Row, Split, Task
from paretune.core.text_files import parsed_json
from paretune.tasks.tokenizers import made_tokenizer

TOKENS_SHOWN = 12  # of a first prompt, at its beginning and at its end


def model_context(model: str) -> int | None:
    """Return the longest sequence a model folder's configuration allows, in tokens; None where it names no limit.

    A hub id has no folder to read, so it counts as one without a limit.
    """
    file = Path(model) / "config.json"
    if not file.is_file():
        return None
    return context_limit(parsed_json(file.read_text(encoding="utf-8")))


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


def plain_encoder(model: str) -> PromptEncoder | str:
    """Return what encodes the prompts of a model folder as the model does, before it loads.

    Returns:
        Why there is none, in words, for a hub id and where none can be had without the model, see `tasks.tokenizers`.

    Raises:
        ModelError: If the tokenizer draws at random what it makes of a text, or confuses special tokens with others.
    """
    file = user_path(model) / "tokenizer.json"
    if not file.is_file():
        return f"{model} holds no tokenizer.json" if file.parent.is_dir() else f"{model} is read from the hub"
    made = made_tokenizer(file.parent)
    if made is None:
        return "its tokenizer cannot be read without the library that runs the model"
    tokenizer, special, rows = made
    check_repeatable(tokenizer.model)
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def tokenize(text: str, add: bool = False, as_text: bool = False) -> list[int]:
        tokenizer.encode_special_tokens = as_text
        # one by one: threads that encode_batch starts would warn in every process started after them
        return list(tokenizer.encode(text, add_special_tokens=add).ids)

    return PromptEncoder(tokenize, special, tokenizer.get_vocab, lambda index: str(tokenizer.id_to_token(index)), rows)


def check_prompts(task: Task, encoder: PromptEncoder, context_tokens: int | None = None) -> None:
    """Check that every prompt, in the task's template, is short enough.

    Args:
        task: The task.
        encoder: Of its model.
        context_tokens: The model's limit; by default what its folder says.

    Raises:
        TaskError: If a prompt has no token or more than `max_prompt_tokens`, or prompt and completion of full length
            exceed the context.
    """
    check_context(task, context_tokens)
    for split in SPLITS:
        rows = task.splits[split]
        broken = next((row for row in rows if not is_writable(f"{task.template}{row['prompt']}")), None)
        if broken is not None:
            raise TaskError(
                f"{split} prompt '{broken['prompt_id']}' of task '{task.name}' must be text without half a surrogate "
                f"pair, template included, got {brief(broken['prompt'])}. Correct its encoding, or remove it."
            )
        lengths = [len(_ids(task, split, row, encoder)) for row in rows]
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


def _ids(task: Task, split: Split, row: Row, encoder: PromptEncoder) -> tuple[int, ...]:
    try:
        return encoder.ids(str(row["prompt"]), task.prompt_format)
    except ParetuneError as error:
        raise TaskError(f"{split} prompt '{row['prompt_id']}' of task '{task.name}': {error}") from error


def first_input(task: Task) -> dict[str, Any] | None:
    """Return what the model reads for a task's first training prompt: ids and tokens; None before the model is loaded.

    Beside them, how many training prompts hold the text of a special token, which is plain text unless the task says
    that it is meant.
    """
    encoder = plain_encoder(task.model)
    if isinstance(encoder, str):
        return None
    rows = task.splits["train"]
    ids = _ids(task, "train", rows[0], encoder)
    held = 0 if task.special_tokens_in_prompts else sum(bool(encoder.held_by(str(row["prompt"]))) for row in rows)
    return {
        "task": task.name,
        "prompt_id": rows[0]["prompt_id"],
        "token_ids": list(ids),
        "tokens": [encoder.piece(index) for index in ids],
        "prompts_with_special_tokens_as_text": held,
    }


def input_line(task: Task) -> str:
    """Say what the model reads for a task's first prompt, token by token, in letters that any terminal shows."""
    found = first_input(task)
    if found is None:
        why = plain_encoder(task.model)
        return f"first prompt of {task.name}: prompts are checked only when the model is loaded, as {why}"
    shown = [f"{index} {piece!a}" for index, piece in zip(found["token_ids"], found["tokens"], strict=True)]
    count, held = len(shown), found["prompts_with_special_tokens_as_text"]
    if count > 2 * TOKENS_SHOWN:
        shown = [*shown[:TOKENS_SHOWN], f"... {count - 2 * TOKENS_SHOWN} more ...", *shown[-TOKENS_SHOWN:]]
    note = (
        f"; {held:,} of {len(task.splits['train']):,} prompts hold the text of a special token, read as plain text: "
        "set special_tokens_in_prompts: true if it is meant"
    )
    tokens = "1 token" if count == 1 else f"{count} tokens"
    return f"first prompt of {task.name}, {tokens}: {', '.join(shown)}{note if held else ''}"
