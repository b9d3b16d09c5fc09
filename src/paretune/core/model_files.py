"""Whether a model folder's files are whole, read without loading the model."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from paretune.core.errors import ModelError
from paretune.core.text_files import parsed_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
HEADER_MOST: Final = 100_000_000  # bytes, what safetensors itself reads at most


def check_model_files(model: str, what: str = "model") -> None:
    """Check configuration and parameter files of a local folder; of a hub id nothing is known yet.

    Args:
        model: Folder or hub id.
        what: How messages name it; a `model` must not be an encoder-decoder, other kinds may.

    Raises:
        ModelError: If the folder holds an adapter, code of its own, no readable configuration, an encoder-decoder, or a
            parameter file that is missing or damaged.
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
    for file in parameter_files(folder, what):
        _check_tensors(file, what)


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


def _check_tensors(file: Path, what: str) -> None:
    """Refuse a safetensors file whose header cannot be read, or that is not as long as it says."""
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = parsed_json(stream.read(min(length, HEADER_MOST)))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        wanted = 8 + length + max(ends)
    except (struct.error, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        wanted = -1
    if wanted != size:
        said = "a header that cannot be read" if wanted < 0 else f"{size} bytes in place of {wanted}"
        raise ModelError(f"{what} must have whole parameter files, got {said} in '{file}'. Copy the model again.")
