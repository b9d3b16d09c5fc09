"""Content digests: equal inputs, equal name on disk."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from paretune.core.checks import user_path
from paretune.core.errors import ConfigError, ModelError

KEY_VERSION = 1  # part of every key: raise it when the meaning of a key changes


def canonical_json(value: object) -> str:
    """Serialise plain data with sorted keys and exact floats, so that equal data give equal text.

    Raises:
        ConfigError: If a number is not finite or a type is not plain data.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _plain(value: object) -> object:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError(f"a key must hold finite numbers, got {value}. Remove the NaN or infinity.")
        return int(value) if value.is_integer() and abs(value) < 2**53 else value  # 1 and 1.0 mean the same in YAML
    if value is None or isinstance(value, (str, int, bool)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (Sequence, set, frozenset)):
        return [_plain(item) for item in (sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value)]
    raise ConfigError(f"a key must be plain data, got {type(value).__name__}. Convert it to numbers and strings.")


def digest(value: object, length: int = 20) -> str:
    """Return the first `length` hex digits of the SHA-256 of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def bytes_digest(content: bytes, length: int = 20) -> str:
    """Return the first `length` hex digits of the SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()[:length]


def file_digest(path: Path, length: int = 20) -> str:
    """Return the first `length` hex digits of the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:length]


def folder_digest(path: Path, suffixes: Sequence[str]) -> str:
    """Digest the files of a folder whose names end in one of `suffixes`, by name and content."""
    files = sorted(file for file in path.iterdir() if file.is_file() and file.name.endswith(tuple(suffixes)))
    return digest({file.name: file_digest(file) for file in files})


def model_digest(model: str) -> str:
    """Digest a model folder by its configuration, tokenizer and parameters; a hub id stands for itself.

    Raises:
        ModelError: If the folder has no `config.json` or no safetensors file.
    """
    folder = user_path(model)
    if not folder.exists():
        return digest({"hub": model})
    if not (folder / "config.json").is_file():
        raise ModelError(f"model must be a folder with a config.json, got '{model}'. Save it with save_pretrained.")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"model must hold safetensors files, got none in '{model}'. Save it again with "
            "save_pretrained(safe_serialization=True)."
        )
    stamp = tuple((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in sorted(folder.iterdir()))
    return _folder_digest_once(str(folder.resolve()), stamp)


@functools.lru_cache(maxsize=64)
def _folder_digest_once(folder: str, stamp: tuple[tuple[str, int, int], ...]) -> str:
    del stamp  # only there to miss the cache when a file changed
    return folder_digest(Path(folder), (".safetensors", ".json", ".model", ".txt"))
