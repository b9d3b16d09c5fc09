"""Controls of what context buys a gate: contexts that are not the row's own."""

from __future__ import annotations

from collections.abc import Sequence

from paretune.core.errors import ConfigError
from paretune.core.seeds import prompt_key, stream_key


def exchanged(prompts: Sequence[Sequence[int]], pool: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Return for each prompt another one of a pool, the same each time: its digest chooses.

    What is left to read is a name of the prompt: two of the same name are told apart from others, but nothing that a
    prompt says has to do with it.

    Args:
        prompts: Token ids of each.
        pool: Token ids of those to choose from.

    Raises:
        ConfigError: If there are not two different ones to choose from.
    """
    known = list(dict.fromkeys(tuple(int(token) for token in each) for each in pool))
    if len(known) < 2:
        raise ConfigError(
            f"context 'shuffled' must have at least 2 different training prompts to choose from, got {len(known)}. "
            "Give the task more, or write context: blind."
        )
    found = []
    for prompt in prompts:
        place = stream_key("context", prompt_key(prompt)) % len(known)
        found.append(known[place] if known[place] != tuple(prompt) else known[(place + 1) % len(known)])
    return found
