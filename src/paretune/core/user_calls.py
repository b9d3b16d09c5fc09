"""Calling what a user wrote: whatever goes wrong in there becomes one sentence that says what was called, and where."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, MethodType
from typing import Any

from paretune.core.errors import MethodError, ParetuneError
from paretune.core.user_code import is_a_users

SHOWN = 80  # letters of a value that messages show


@contextmanager
def called(what: str = "") -> Iterator[None]:
    """Turn what a user's code raises in a block into one error that names it, its type, its message and its line.

    What is raised on purpose stays as it is, and so does what no line of a user's had part in.

    Args:
        what: Is called in the block, for the message; empty where the block is ours and calls a user's code somewhere:
            the message then names the function that raised.

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
        name = what or _raising(error)
        raise MethodError(f"{name} must not raise, got {described(error)}{where}. Correct it.") from error


def described(error: BaseException) -> str:
    """Return type and message of an error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


def user_line(error: BaseException) -> str:
    """Return the last line of a user's code that an error went through, as ` (file.py, line 3)`, or nothing."""
    frames = _user_frames(error)
    return f" ({Path(frames[-1][0].f_code.co_filename).name}, line {frames[-1][1]})" if frames else ""


def _raising(error: BaseException) -> str:
    """Return the last function of a user's that an error went through, as `module:Class.function`."""
    code = _user_frames(error)[-1][0]
    return f"{code.f_globals.get('__name__', Path(code.f_code.co_filename).stem)}:{code.f_code.co_qualname}"


def _user_frames(error: BaseException) -> list[tuple[FrameType, int]]:
    """Return the frames of a user's code that an error went through, the last one last, each with its line."""
    walked = traceback.walk_tb(error.__traceback__)
    return [(frame, line) for frame, line in walked if is_a_users(Path(frame.f_code.co_filename))]


def where_found(function: Any) -> str:
    """Return where something that can be called is defined, as `module:name`, for messages.

    Example:
        >>> where_found(Path.exists)
        'pathlib:Path.exists'
    """
    kind = function if hasattr(function, "__qualname__") else type(function)  # a partial has no name of its own
    return f"{kind.__module__}:{kind.__qualname__}"


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
