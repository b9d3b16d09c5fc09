"""Whether a model folder's files are whole, read without loading the model."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from paretune.core.errors import ModelError
from paretune.core.printable import brief
from paretune.core.text_files import parsed_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
BESIDE: Final = ("generation_config", "tokenizer_config", "special_tokens_map", "added_tokens")  # may be there
FLOATS: Final = ("F32", "F16", "BF16")
WITH_MASKS: Final = ("codegen", "gpt2", "gpt_neo", "gpt_neox", "gpt_neox_japanese", "gptj", "openai-gpt")
MASK: Final = re.compile(
    r"((transformer|gpt_neox)\.)?(h|layers)\.\d+\.(attn|attn\.attention|attention)\.((causal_mask|bias)|masked_bias)"
)
MASK_ENDS: Final = (".attn.bias", ".attention.bias", ".masked_bias", ".causal_mask")
POSITIONS: Final = re.compile(r"(.+\.)?embeddings\.position_ids")
ROTARY: Final = re.compile(r".+\.(rotary_emb|maybe_rotary)\.inv_freq")
HEADER_MOST: Final = 100_000_000  # bytes, what safetensors itself reads at most


def check_model_files(model: str, what: str = "model") -> None:
    """Check configuration and parameter files of a local folder; of a hub id nothing is known yet.

    Args:
        model: Folder or hub id.
        what: How messages name it; a `model` must not be an encoder-decoder, other kinds may.

    Raises:
        ModelError: If the folder holds an adapter, code of its own, no readable configuration, an encoder-decoder, a
            quantised model, another damaged file, or a parameter file that is missing, damaged or not of floats.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{what} must be a whole model, got an adapter in '{model}'. Merge it into its base model and save that."
        )
    config = read_json_object(folder / "config.json", what)
    if not isinstance(config.get("model_type"), str):
        raise ModelError(
            f"{what} must name its model_type, got {config.get('model_type')!r} in '{folder / 'config.json'}'. "
            "Save the model with save_pretrained."
        )
    own = config.get("auto_map")
    if isinstance(own, dict) and any(str(name).startswith("AutoModel") for name in own):
        raise ModelError(
            f"{what} must be of a class in transformers, got code of its own (auto_map) in '{model}', which is never "
            "run. Remove auto_map where a class of transformers computes the same, else take another model."
        )
    if what == "model" and config.get("is_encoder_decoder"):
        raise ModelError(
            f"{what} must be a decoder, got an encoder-decoder of model_type '{config['model_type']}' in '{model}'. "
            "Take a decoder-only language model, such as a gpt2, llama or qwen2."
        )
    nested = config.get("text_config")
    for each in (config, nested if isinstance(nested, dict) else {}):
        if each.get("quantization_config") is not None:
            raise ModelError(
                f"{what} must hold its parameters as they are, got a quantization_config "
                f"{brief(each['quantization_config'])} in '{folder / 'config.json'}'. Take the model that was not "
                "quantised."
            )
    for name in BESIDE:
        if (folder / f"{name}.json").is_file():
            read_json_object(folder / f"{name}.json", what)
    for file in parameter_files(folder, what):
        _check_tensors(file, str(config["model_type"]), what)


def is_old_buffer(kind: str, name: str, shape: Sequence[int] | None = None) -> bool:
    """Whether a tensor of a file is a mask or a table that models of a kind kept beside their parameters.

    Args:
        kind: The `model_type`.
        name: Of the tensor.
        shape: Its shape, where it is known.

    Example:
        >>> is_old_buffer("gpt2", "transformer.h.0.attn.bias"), is_old_buffer("llama", "model.layers.0.attn.bias")
        (True, False)
    """
    mask = MASK.fullmatch(name) if kind in WITH_MASKS else None
    if mask:
        return shape is None or (len(shape) == 4 and shape[:2] == [1, 1] if mask[6] else not shape)
    if POSITIONS.fullmatch(name):
        return shape is None or (len(shape) == 2 and shape[0] == 1)
    return bool(ROTARY.fullmatch(name)) and (shape is None or len(shape) == 1)


def read_json_object(file: Path, what: str) -> Mapping[str, object]:
    """Read a JSON file of a model.

    Raises:
        ModelError: If it is missing, damaged, or holds no keys and values.
    """
    try:
        content = parsed_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{what} must have a readable '{file}', got: {error}. Copy or save the model again."
        ) from error
    if not isinstance(content, dict):
        raise ModelError(f"{what} must have keys and values in '{file}', got {type(content).__name__}. Save it again.")
    return content


def parameter_files(folder: Path, what: str) -> list[Path]:
    """Return the files that hold a model's parameters: one, or the shards of an index.

    Raises:
        ModelError: If the index cannot be read, or names a file that is not there.
    """
    if (folder / SINGLE).is_file() or not (folder / INDEX).is_file():
        return [folder / SINGLE] if (folder / SINGLE).is_file() else sorted(folder.glob("*.safetensors"))
    shards = read_json_object(folder / INDEX, what).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise ModelError(f"{what} must name its shards in weight_map of '{folder / INDEX}', got none. Save it again.")
    files = [folder / name for name in sorted(set(shards.values()))]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise ModelError(
            f"{what} must have all {len(files)} files of its parameters, got '{folder}' without {missing[0].name}. "
            "Copy the model again."
        )
    return files


def _check_tensors(file: Path, kind: str, what: str) -> None:
    """Refuse a safetensors file whose header cannot be read, that is not as long as it says, or holds no floats."""
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = parsed_json(stream.read(min(length, HEADER_MOST)))
        tensors = [(name, entry) for name, entry in header.items() if name != "__metadata__"]
        wanted = 8 + length + max(entry["data_offsets"][1] for _, entry in tensors)
        odd = [(name, entry["dtype"], entry["shape"]) for name, entry in tensors if _is_odd(kind, name, entry)]
    except (struct.error, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        wanted, odd = -1, []
    if wanted != size:
        said = "a header that cannot be read" if wanted < 0 else f"{size} bytes in place of {wanted}"
        raise ModelError(f"{what} must have whole parameter files, got {said} in '{file}'. Copy the model again.")
    if odd:
        name, dtype, shape = min(odd)
        raise ModelError(
            f"{what} must hold its parameters in float32, float16 or bfloat16, and no others, got {dtype} in {name} of "
            f"{shape} in '{file}'. Save it with save_pretrained from the model that was trained."
        )


def _is_odd(kind: str, name: str, entry: Mapping[str, Any]) -> bool:
    ignored = kind in WITH_MASKS and name.endswith(MASK_ENDS)  # which transformers drops without a word
    if ignored or is_old_buffer(kind, name):
        return not is_old_buffer(kind, name, entry["shape"])
    return entry["dtype"] not in FLOATS
