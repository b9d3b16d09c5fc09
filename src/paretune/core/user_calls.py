"""Calling what a user wrote: whatever goes wrong in there becomes one sentence that says what was called, and where."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MethodType
from typing import Any

from paretune.core.errors import MethodError, ParetuneError
from paretune.core.user_code import is_a_users

SHOWN = 80  # letters of a value that messages show


@contextmanager
def called(what: str) -> Iterator[None]:
    """Turn what a user's code raises in a block into one error that names it, its type, its message and its line.

    What is raised on purpose stays as it is, and so does what no line of a user's had part in.

    Args:
        what: Is called in the block, for the message.

    Raises:
        MethodError: In place of anything else that a user's code raises; that is its cause.
    """
    try:
        yield
    except ParetuneError:
        raise
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        where = user_line(error)
        if not where:
            raise
        raise MethodError(f"{what} must not raise, got {described(error)}{where}. Correct it.") from error


def described(error: BaseException) -> str:
    """Return type and message of an error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


def user_line(error: BaseException) -> str:
    """Return the last line of a user's code that an error went through, as ` (file.py, line 3)`, or nothing."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_a_users(Path(frame.filename))]
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


def check_takes(what: str, function: Callable[..., Any], names: Sequence[str]) -> None:
    """Check that something can be called with so many arguments, before it is.

    Args:
        what: It is, for the message.
        function: A function, a bound method or a class.
        names: Of the arguments, for the message.

    Raises:
        MethodError: If it takes other arguments.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of compiled code, which does not say
        return
    try:
        signature.bind(*names)
    except TypeError:
        bound = isinstance(function, MethodType)
        takes = inspect.signature(function.__func__) if isinstance(function, MethodType) else signature
        wanted = ", ".join(["self", *names] if bound else names)
        got = ", ".join(str(each) for each in takes.parameters.values())
        raise MethodError(f"{what} must take ({wanted}), got ({got}). Correct its arguments.") from None


def shown(value: object) -> str:
    """Return a value as messages show it: as it is typed where that is short, else its type.

    Example:
        >>> shown(None), shown([1, 2]), shown(print)
        ('None', '[1, 2]', 'a builtin_function_or_method')
    """
    text = " ".join(repr(value).split())
    return text if len(text) <= SHOWN and not text.startswith("<") else f"a {type(value).__name__}"
