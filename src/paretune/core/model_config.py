"""What a model's configuration file says, read without loading the model."""

from __future__ import annotations

from collections.abc import Mapping


def context_limit(config: Mapping[str, object]) -> int | None:
    """Return the longest sequence a model reads, in tokens, or None where its configuration names no limit.

    Args:
        config: Content of `config.json`.

    Example:
        >>> context_limit({"text_config": {"max_position_embeddings": 4096}})
        4096
    """
    text = config.get("text_config")  # models that also read images nest it
    known = {**config, **text} if isinstance(text, Mapping) else config
    limits = (known.get(name) for name in ("max_position_embeddings", "n_positions"))
    return next((limit for limit in limits if isinstance(limit, int)), None)
