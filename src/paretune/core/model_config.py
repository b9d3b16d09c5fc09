"""What a model's files say, read without loading the model."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path

SMALL_MODEL_PARAMETERS = 50_000_000  # below, a thread a worker beats all threads in one, and bf16 gains no speed


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


def is_small(model: str) -> bool:
    """Whether the model in a folder has fewer than `SMALL_MODEL_PARAMETERS`; one of unknown size is not small.

    Args:
        model: Local folder or hub id; the size of a hub id's model is unknown, and of a damaged file's.
    """
    files = sorted(Path(model).expanduser().glob("*.safetensors"))
    try:
        return bool(files) and sum(parameter_count(file) for file in files) < SMALL_MODEL_PARAMETERS
    except (OSError, ValueError, KeyError, struct.error):  # loading the model says what is wrong with it
        return False


def parameter_count(file: Path) -> int:
    """Count the parameters of a safetensors file from its header."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
