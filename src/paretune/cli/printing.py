"""What commands print: text of models and users is shown, never obeyed."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import suppress
from typing import TextIO

from paretune.core.printable import printable


def say(text: str = "", stream: TextIO | None = None) -> None:
    """Print text, its control characters written out.

    Args:
        text: What to print.
        stream: Where to; by default stdout.
    """
    print(printable(text), file=stream)


def say_json(data: object) -> None:
    """Print plain data as JSON, in ASCII without control characters."""
    print(json.dumps(data, indent=2).replace("\x7f", "\\u007f"))


def complain(text: str) -> None:
    """Print text on stderr, its control characters written out."""
    say(text, sys.stderr)


class Notes(logging.StreamHandler[TextIO]):
    """Prints what the library notes, such as an instance it is drawing, on stderr."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a note."""
        return printable(super().format(record))


def print_any_letter() -> None:
    """Let stdout and stderr write out what their encoding does not have, rather than raise in the middle of a line."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # what is no file, as in tests
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # of a TextIOWrapper
