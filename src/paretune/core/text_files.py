"""Files that others wrote: text in UTF-8, or one sentence that names the line which is not; JSON of any depth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from paretune.core.errors import ParetuneError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # which spreadsheets put first


def decoded(content: bytes, file: Path, kind: type[ParetuneError], line: int = 1) -> str:
    """Return bytes as text.

    Args:
        content: What was read.
        file: Where from, for the message.
        kind: What to raise.
        line: Number of its first line.

    Raises:
        ParetuneError: Of the kind, if they are not UTF-8.
    """
    try:
        return content.removeprefix(BYTE_ORDER_MARK if line == 1 else b"").decode()
    except UnicodeDecodeError as error:
        at = line + error.object.count(b"\n", 0, error.start)
        raise kind(
            f"{file}:{at} must be UTF-8 text, got the byte {error.object[error.start]:#04x} ({error.reason}). Save the "
            "file as UTF-8."
        ) from error


def parsed_json(content: str | bytes | bytearray) -> Any:
    """Return what JSON says.

    Raises:
        ValueError: If it is none, or nested too deeply to be read.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("lists or keys in one another beyond what can be read") from None
