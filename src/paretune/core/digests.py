"""Content digests: equal inputs, equal name on disk."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from paretune.core.errors import ConfigError

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


def file_digest(path: Path, length: int = 20) -> str:
    """Return the first `length` hex digits of the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:length]


def folder_digest(path: Path, suffixes: Sequence[str]) -> str:
    """Digest the files of a folder whose names end in one of `suffixes`, by name and content."""
    files = sorted(file for file in path.iterdir() if file.is_file() and file.name.endswith(tuple(suffixes)))
    return digest({file.name: file_digest(file) for file in files})
