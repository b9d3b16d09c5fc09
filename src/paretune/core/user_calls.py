"""Calling what a user wrote: whatever goes wrong in there becomes one sentence that says what was called, and where."""

from __future__ import annotations

import inspect
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, MethodType
from typing import Any

from paretune.core.errors import MethodError, ParetuneError, StopRequested
from paretune.core.printable import printable_line
from paretune.core.surroundings import one_process, surroundings_kept
from paretune.core.user_code import is_a_users

SHOWN = 80  # letters of a value that messages show
LONGEST = 1000  # letters of an error's message that messages show


@contextmanager
def called(what: str = "", kind: type[ParetuneError] = MethodError) -> Iterator[None]:
    """Turn what a user's code raises in a block into one error that names it, its type, its message and its line.

    What is raised on purpose stays as it is, and so does what no line of a user's had part in. A block that calls a
    user's code by name leaves the process as it was, see `surroundings_kept`.

    Args:
        what: Is called in the block, for the message; empty where the block is ours and calls a user's code somewhere:
            the message then names the function that raised.
        kind: Class of the error.

    Raises:
        MethodError: Or another `kind`, in place of anything else that a user's code raises, a KeyboardInterrupt or
            SystemExit too; that is its cause.
        StopRequested: In place of the KeyboardInterrupt of a real Ctrl-C.
    """
    try:
        with surroundings_kept(what, kind) if what else one_process(), real_interrupts():
            yield
    except (ParetuneError, StopRequested):
        raise
    except BaseException as error:  # a user's code may raise anything
        where = user_line(error)
        if not where:
            raise
        name = what or _raising(error)
        raise kind(f"{name} must not raise, got {described(error)}{where}. Correct it.") from error


@contextmanager
def real_interrupts() -> Iterator[None]:
    """Let a real Ctrl-C raise `StopRequested` in a block, so that a KeyboardInterrupt there is known for a user's."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield  # signals are heard in the main thread alone
        return

    def hear(number: int, frame: FrameType | None) -> None:
        try:
            before(number, frame)
        except StopRequested:
            raise
        except KeyboardInterrupt as error:
            raise StopRequested from error

    signal.signal(signal.SIGINT, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def described(error: BaseException) -> str:
    """Return type and message of an error in one line that every terminal and file can take."""
    try:
        text = str(error)
    except StopRequested:
        raise
    except BaseException as second:  # noqa: BLE001  # a user's __str__ may raise anything
        text = f"(its message raised {type(second).__name__})"
    return one_line(f"{type(error).__name__}: {text}").removesuffix(":")


def one_line(text: str, longest: int = LONGEST) -> str:
    r"""Return a text as one line: no control character, no lone surrogate, and cut where it is too long.

    Example:
        >>> one_line("a\n b\x1b[31m")
        'a b\\x1b[31m'
    """
    clean = printable_line(text[: 8 * longest])
    return clean if len(clean) <= longest and len(text) <= 8 * longest else f"{clean[:longest]}..."


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
    try:
        text = repr(value)
    except StopRequested:
        raise
    except BaseException:  # noqa: BLE001  # a user's __repr__ may raise anything
        text = ""
    short = one_line(text, SHOWN) if 0 < len(text) <= SHOWN else "<"
    return short if len(short) <= SHOWN and not short.startswith("<") else f"a {type(value).__name__}"
