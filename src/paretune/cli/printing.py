"""What commands print: text of models and users is shown, never obeyed."""

from __future__ import annotations

import json
import logging
import os
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


class Notes(logging.Handler):
    """Prints what the library notes, such as an instance it is drawing, on stderr: a line, and more on demand."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a note; what follows its first line, such as a traceback, with PARETUNE_TRACEBACK=1 alone."""
        text = self.format(record)
        with suppress(OSError, ValueError):  # nobody hears
            complain(text if os.environ.get("PARETUNE_TRACEBACK") == "1" else text.partition("\n")[0])


def print_any_letter() -> None:
    """Let stdout and stderr write out what their encoding does not have, rather than raise in the middle of a line."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # what is no file, as in tests
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # of a TextIOWrapper
