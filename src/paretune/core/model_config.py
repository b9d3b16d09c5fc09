"""What a model's files say, read without loading the model."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path

from paretune.core.checks import user_path
from paretune.core.errors import ConfigError, ModelError
from paretune.core.printable import brief
from paretune.core.text_files import parsed_json

SMALL_MODEL_PARAMETERS = 50_000_000  # below, a thread a worker beats all threads in one, and bf16 gains no speed


def context_limit(config: Mapping[str, object]) -> int | None:
    """Return the longest sequence a model reads, in tokens, or None where its configuration names no limit.

    Args:
        config: Content of `config.json`.

    Raises:
        ModelError: If it names something else.

    Example:
        >>> context_limit({"text_config": {"max_position_embeddings": 4096}})
        4096
    """
    known = _of_text(config)
    named = ("max_position_embeddings", "n_positions")
    name, limit = next(((name, known[name]) for name in named if known.get(name) is not None), ("", None))
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ModelError(
            f"{name} must be a whole number of tokens from 1 on, got {brief(limit)}. Correct the model's config.json."
        )
    return limit


def _of_text(config: Mapping[str, object]) -> Mapping[str, object]:
    text = config.get("text_config")  # models that also read images nest it
    return {**config, **text} if isinstance(text, Mapping) else config


def block_count(config: Mapping[str, object]) -> int | None:
    """Return how many transformer blocks a model has, or None where its configuration does not say.

    Args:
        config: Content of `config.json`.

    Example:
        >>> block_count({"n_layer": 12}), block_count({"depth": 12})
        (12, None)
    """
    known = _of_text(config)
    counts = [known[name] for name in ("num_hidden_layers", "n_layer", "n_layers", "num_layers") if name in known]
    return counts[0] if counts and isinstance(counts[0], int) else None


TESTED_KINDS = tuple(
    """
    apertus arcee biogpt bitnet bloom codegen cohere cohere2 deepseek_v2 deepseek_v3 diffllama ernie4_5 exaone4
    falcon gemma gemma2 gemma3_text glm glm4 glm4_moe gpt2 gpt_bigcode gpt_neo gpt_neox gpt_oss gptj granite
    granitemoe helium hunyuan_v1_dense llama minicpm3 ministral mistral mixtral mpt nemotron olmo olmo2 olmo3 olmoe
    opt persimmon phi phi3 qwen2 qwen2_moe qwen3 qwen3_moe seed_oss smollm3 stablelm starcoder2 xglm
    """.split()
)  # by model_type: docs/models.md says what is tested of them; others may work, and are tried out when loaded
BLOCKWISE = ("gpt2", "llama", "qwen2")  # kinds, by model_type, whose later blocks can go on with fewer rows


def check_block(config: Mapping[str, object], model: str, block: int | None) -> int:
    """Return behind which block of a model hidden states are mixed.

    Args:
        config: Content of `config.json`.
        model: Its name, for the error.
        block: Number of the block, from 0 on or, below 0, from the last; None is the last.

    Raises:
        ModelError: If its kind is none whose hidden states can be mixed, or it has no such block.

    Example:
        >>> check_block({"model_type": "gpt2", "n_layer": 12}, "gpt2", -2)
        10
    """
    kind, count = config.get("model_type"), block_count(config)
    if kind not in BLOCKWISE or count is None:
        raise ModelError(
            f"model must be of a kind whose hidden states can be mixed ({', '.join(BLOCKWISE)}), got model_type "
            f"'{kind}' in '{model}'. Mix adapters or log-probabilities."
        )
    if block is not None and not -count <= block < count:
        raise ModelError(
            f"block must be one of the model's {count} blocks, 0 to {count - 1} or, from the last, -1 to {-count}, got "
            f"{block} for '{model}'. Name one of them."
        )
    return range(count)[-1 if block is None else block]


def check_block_of(model: str, block: int | None) -> None:
    """Check what `check_block` does, for a local folder; the kind of a hub id's model is known once it is loaded.

    Raises:
        ModelError: As `check_block` does.
    """
    file = user_path(model) / "config.json"
    if file.is_file():
        check_block(parsed_json(file.read_text(encoding="utf-8")), model, block)


def check_gate_block(block: int, blocks: int) -> None:
    """Check that a model has the block whose input a gate of tokens reads.

    Raises:
        ConfigError: If it does not.
    """
    if not 0 <= block < blocks:
        raise ConfigError(
            f"gate_block must be one of the model's {blocks} blocks, 0..{blocks - 1}, got {block}. Name the block "
            "whose input the gate is to read."
        )


def check_gate_block_of(model: str, block: int) -> None:
    """Check what `check_gate_block` does, for a local folder; how many blocks a hub id has is known once it is loaded.

    Raises:
        ConfigError: As `check_gate_block` does.
    """
    file = user_path(model) / "config.json"
    blocks = block_count(parsed_json(file.read_text(encoding="utf-8"))) if file.is_file() else None
    if blocks is not None:
        check_gate_block(block, blocks)


def is_small(model: str) -> bool:
    """Whether the model in a folder has fewer than `SMALL_MODEL_PARAMETERS`; one of unknown size is not small.

    Args:
        model: Local folder or hub id; the size of a hub id's model is unknown, and of a damaged file's.
    """
    files = sorted(user_path(model).glob("*.safetensors"))
    try:
        return bool(files) and sum(parameter_count(file) for file in files) < SMALL_MODEL_PARAMETERS
    except (OSError, ValueError, KeyError, struct.error):  # loading the model says what is wrong with it
        return False


def parameter_count(file: Path) -> int:
    """Count the parameters of a safetensors file from its header."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = parsed_json(stream.read(length))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
