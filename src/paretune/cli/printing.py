"""What commands print: text of models and users is shown, never obeyed."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from paretune.core.printable import drop_output, printable, write_line


def say(text: str = "", stream: TextIO | None = None) -> None:
    """Print text, its control characters written out.

    Args:
        text: What to print.
        stream: Where to; by default stdout.
    """
    write_line(printable(text), stream or sys.stdout)


def say_json(data: object) -> None:
    """Print plain data as JSON, in ASCII without control characters."""
    write_line(json.dumps(data, indent=2).replace("\x7f", "\\u007f"), sys.stdout)


def complain(text: str) -> None:
    """Print text on stderr, its control characters written out."""
    say(text, sys.stderr)


class Notes(logging.StreamHandler[TextIO]):
    """Prints what the library notes, such as an instance it is drawing, on stderr."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a note."""
        return printable(super().format(record))


@contextmanager
def notes_shown() -> Iterator[None]:
    """Print what the library notes, such as an instance it is drawing, on stderr."""
    logger, handler = logging.getLogger("paretune"), Notes(sys.stderr)
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def prepare_streams() -> None:
    """Let stdout and stderr take whatever is printed: what their encoding does not have is written out.

    Where a stream is closed, what is printed there goes nowhere, and no file that is opened takes its number.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it takes the lowest number that is free
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # open as long as the process
        with suppress(AttributeError):  # what is no file, as in tests
            getattr(sys, name).reconfigure(errors="backslashreplace")


def flush_output() -> None:
    """Write out what was printed on stdout; where its reader has gone, nobody reads it."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        drop_output(sys.stdout)


def flushed_or_dropped() -> bool:
    """Tell whether what was printed on stdout could be written out; if not, Python does not try it again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        drop_output(sys.stdout)
        return False
    return True
