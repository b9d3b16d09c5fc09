"""Text that others wrote, made safe to show: a terminal or a page obeys control characters, so none is passed on."""

from __future__ import annotations

import os
import sys
import unicodedata
from typing import Final, TextIO

KEPT: Final = "\n\t"
JOINERS: Final = "\u200c\u200d"  # they shape letters and emoji, and move nothing
HIDDEN: Final = ("Cc", "Cf", "Cs")  # control, format (bidi among them), half a surrogate pair


def printable(text: str, kept: str = KEPT) -> str:
    r"""Return text with every character written out that would control what shows it, such as ESC as `\x1b`.

    Args:
        text: What a model, a user's code or a file says.
        kept: Control characters to leave as they are.

    Example:
        >>> printable("a\x1b[2Jb\u202ec")
        'a\\x1b[2Jb\\u202ec'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter if _harmless(letter, kept) else _written_out(letter) for letter in text)


def printable_line(text: str) -> str:
    """Return text as one line, which shows nothing but letters."""
    return printable(" ".join(text.split()), kept="")


def brief(value: object, longest: int = 60) -> str:
    """Return a value for a message: one line, cut where it is long.

    Example:
        >>> brief("x" * 1000)
        "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx... (1,002 characters)"
    """
    text = repr(value)
    return printable_line(text if len(text) <= longest else f"{text[: longest - 21]}... ({len(text):,} characters)")


def is_writable(text: str) -> bool:
    """Return whether text can be written as UTF-8: half a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _harmless(letter: str, kept: str) -> bool:
    return letter in kept or letter in JOINERS or unicodedata.category(letter) not in HIDDEN


def _written_out(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")


def write_line(text: str, stream: TextIO) -> None:
    """Write a line; where the stream's reader has gone, such as `head`, this and what follows goes nowhere."""
    try:
        print(text, file=stream, flush=stream is not sys.stdout)
    except BrokenPipeError:
        drop_output(stream)


def drop_output(stream: TextIO) -> None:
    """Let nobody read what is still written to a stream."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
