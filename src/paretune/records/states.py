"""States of training under way: safetensors files that hold their own digest, looked at without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paretune.core.errors import RecordError
from paretune.records.files import SCHEMA_VERSION, read_signed, write_signed

DIGEST = "digest"  # in the metadata of the file
UNSEALED = "0" * 64  # in its place while the digest is taken
_MARK = b'"' + DIGEST.encode() + b'":"'


def seal_state(path: Path) -> None:
    """Put the digest of a safetensors file into it.

    Args:
        path: A file whose metadata has `DIGEST`: `UNSEALED`; it is changed in place.

    Raises:
        RecordError: If it has not.
    """
    content = path.read_bytes()
    place = _place(content)
    if place < 0 or content[place : place + 64] != UNSEALED.encode():
        raise RecordError(f"{path} must have room for its digest, got none. Save it with metadata {DIGEST}: UNSEALED.")
    with path.open("r+b") as file:
        file.seek(place)
        file.write(hashlib.sha256(content).hexdigest().encode())


def state_trouble(path: Path) -> str:
    """Say what is wrong with a sealed state, such as `has changed since it was written`; nothing of a whole one."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    place = _place(content)
    if place >= 0:
        unsealed = hashlib.sha256(content[:place])
        unsealed.update(UNSEALED.encode())
        unsealed.update(memoryview(content)[place + 64 :])
        if unsealed.hexdigest().encode() == content[place : place + 64]:
            return ""
    return "has changed since it was written"


def write_measured(path: Path, measured: Sequence[Mapping[str, object]]) -> None:
    """Write what the ledgers of a state measured, seconds and memory, into a file beside it."""
    write_signed(_measured_file(path), {"schema_version": SCHEMA_VERSION, "ledgers": list(measured)})


def read_measured(path: Path) -> list[dict[str, Any]]:
    """Read what the ledgers of a state measured; nothing where its file is gone.

    Raises:
        RecordError: If the file is damaged.
    """
    file = _measured_file(path)
    return list(read_signed(file)["ledgers"]) if file.exists() else []


def remove_damaged_measured(path: Path) -> bool:
    """Remove what the ledgers of a state measured where it is damaged, and return whether it was."""
    try:
        read_measured(path)
    except RecordError:
        _measured_file(path).unlink()
        return True
    return False


def remove_state(path: Path) -> None:
    """Remove a state and what its ledgers measured."""
    path.unlink()
    _measured_file(path).unlink(missing_ok=True)


def _measured_file(path: Path) -> Path:
    return path.with_suffix(".measured.json")


def _place(content: bytes) -> int:
    """Return where the digest begins, -1 where there is none. It lies in the header, whose length comes first."""
    found = content.find(_MARK, 8, 8 + int.from_bytes(content[:8], "little"))
    return -1 if found < 0 else found + len(_MARK)
