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

REWARDS = "paretune.objectives.scoring"  # its notes are each about what a reward did

_waiting: list[tuple[str, str]] = []  # warnings: what each is about, and its line


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
    """Print text on stderr, its control characters written out, after the warnings that wait."""
    _print_waiting()
    say(text, sys.stderr)


def complain_last(text: str) -> None:
    """Print what a command ends with on stderr, in place of the warnings that wait and say the same."""
    _waiting[:] = [(what, warning) for what, warning in _waiting if what not in text]
    complain(text)


def _print_waiting() -> None:
    warnings = [warning for _, warning in _waiting]
    _waiting.clear()
    for warning in warnings:
        say(warning, sys.stderr)


class Notes(logging.Handler):
    """Prints what the library notes, such as an instance it is drawing, on stderr: a line, and more on demand.

    What is said of a reward waits for the next line, which may say the same, or for the end.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Print a note; what follows its first line, such as a traceback, with PARETUNE_TRACEBACK=1 alone."""
        whole, text = os.environ.get("PARETUNE_TRACEBACK") == "1", self.format(record)
        if record.name == REWARDS and isinstance(record.args, tuple) and not whole:
            _waiting.append((str(record.args[0]), text.partition("\n")[0]))
            return
        with suppress(OSError, ValueError):  # nobody hears
            complain(text if whole else text.partition("\n")[0])

    def flush(self) -> None:
        """Print the warnings that wait."""
        with suppress(OSError, ValueError):
            _print_waiting()


@contextmanager
def notes_shown() -> Iterator[None]:
    """Print what the library notes, such as an instance it is drawing, on stderr."""
    logger, handler = logging.getLogger("paretune"), Notes()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        handler.flush()
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
