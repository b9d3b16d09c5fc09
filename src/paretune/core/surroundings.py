"""The process around a user's code: what that code may change, end or double there, and how each is put right."""

from __future__ import annotations

import builtins
import json
import os
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, NoReturn, TextIO

from paretune.core.errors import MethodError, ParetuneError
from paretune.core.printable import printable
from paretune.core.user_code import is_a_users

END: Callable[[int], NoReturn] = os._exit  # ends this process at once, whatever `exits_refused` does
WAYS_OUT = ("_exit", "abort", "execv", "execve")  # of os; they end a process without a word
HEARD = ("HUP", "INT", "QUIT", "PIPE", "TERM", "CHLD", "CONT", "TSTP", "XFSZ")  # not those of timers alone
SIGNALS = [getattr(signal, f"SIG{name}") for name in HEARD]  # that a command or the shell relies on
TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
LIMITS = {name: getattr(resource, name) for name in sorted(dir(resource)) if name.startswith("RLIMIT_")}
HIGH = 500  # descriptors from here on are not what code hits that closes some low number

_refusing: list[int] = []  # this process, once for each block of `exits_refused`
_leaving_inference: list[Any] = []  # guards that keep torch out of an inference mode that was never left


class Setting(NamedTuple):
    """Something of the process that a user's code may change.

    Attributes:
        name: For messages.
        read: Returns it as it is.
        write: Sets it to what `read` returned; raises where that cannot be done.
        fresh: What it is in a library that has just been imported.
    """

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]
    fresh: Any = None


@contextmanager
def surroundings_kept(what: str = "a user's code", kind: type[ParetuneError] = MethodError) -> Iterator[None]:
    """Put back, after a block, what a user's code may change in the process: docs/tasks.md lists it.

    A child that the block has forked and that comes out of it ends there.

    Args:
        what: Is called in the block, for the message.
        kind: Class of the error.

    Raises:
        MethodError: Or another `kind`, if something cannot be put back.
    """
    torch = sys.modules.get("torch")
    settings = [*_SETTINGS, *_numpys(sys.modules.get("numpy")), *_torchs(torch)]
    recursion, names, modules = sys.getrecursionlimit(), builtins.__dict__.copy(), dict(sys.modules)
    kept = [(setting, setting.read()) for setting in settings]
    with one_process(), _output_kept():
        try:
            yield
        finally:
            sys.setrecursionlimit(max(recursion, sys.getrecursionlimit()))  # what puts the others back needs it
            builtins.__dict__.update(names)
            gone = () if modules.keys() <= sys.modules.keys() else modules.keys() - sys.modules.keys()
            for name in gone:  # a user's may have been edited, and is imported anew
                if not is_a_users(Path(getattr(modules[name], "__dict__", {}).get("__file__") or "")):
                    sys.modules[name] = modules[name]
            if torch is None:
                kept += [(setting, setting.fresh) for setting in _torchs(sys.modules.get("torch"))]
            stuck = [name for name in map(_put_back, kept) if name]
    if stuck:
        raise kind(
            f"{what} must leave the process as it was, got {', '.join(stuck)} changed for good. Change that in a "
            "process of its own."
        )


def _put_back(kept: tuple[Setting, Any]) -> str:
    """Put a setting back and return nothing, or its name where that cannot be done."""
    setting, value = kept
    try:
        if value is not None and setting.read() != value:
            setting.write(value)
    except (OSError, ValueError, RuntimeError):
        return setting.name
    return ""


@contextmanager
def one_process() -> Iterator[None]:
    """End a child that a block has forked and that comes out of it: two processes would go on with one command."""
    process = os.getpid()
    try:
        yield
    finally:
        if os.getpid() != process:
            END(1)


@contextmanager
def exits_refused() -> Iterator[None]:
    """Let what would end this process without a word, such as `os._exit`, raise SystemExit in a block.

    A command runs in it. The children that it forks end as they like.
    """
    before = {name: getattr(os, name) for name in WAYS_OUT}
    _refusing.append(os.getpid())
    for name, act in before.items():
        setattr(os, name, _refused(name, act))
    try:
        yield
    finally:
        _refusing.pop()
        for name, act in before.items():
            setattr(os, name, act)


def _refused(name: str, act: Callable[..., object]) -> Callable[..., object]:
    def end(*arguments: object) -> object:
        if os.getpid() not in _refusing:
            return act(*arguments)
        raise SystemExit(f"os.{name}({', '.join(repr(each)[:40] for each in arguments[:1])})")

    return end


class Shielded:
    """A stream of a command as a user's code gets it: it stays open, and shows control characters written out."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text as it may be shown."""
        self._stream.write(printable(text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write lines as they may be shown."""
        self.write("".join(lines))

    def close(self) -> None:
        """Stay open: what a command has to say comes later."""


@contextmanager
def _output_kept() -> Iterator[None]:
    """Put back stdout and stderr, and the descriptors 1 and 2 below them, whatever a block closes or redirects."""
    streams, saved = [sys.stdout, sys.stderr], {number: _duplicate(number) for number in (1, 2)}
    if os.getpid() in _refusing:
        sys.stdout, sys.stderr = map(_shielded, streams)
    try:
        yield
    finally:
        for number, copy in saved.items():
            if copy is not None:
                if _node(number) != _node(copy):
                    with suppress(OSError):  # the copy was closed, too
                        os.dup2(copy, number)
                with suppress(OSError):
                    os.close(copy)
        sys.stdout, sys.stderr = (_opened(stream, number) for number, stream in enumerate(streams, 1))


def _shielded(stream: Any) -> Any:
    return stream if stream is None or isinstance(stream, Shielded) else Shielded(stream)


def _duplicate(number: int) -> int | None:
    import fcntl

    try:
        return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, HIGH)
    except OSError:  # nothing is open there, or no number is left
        return None


def _node(number: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(number)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _opened(stream: TextIO, number: int) -> TextIO:
    """Return a stream, or a new one on its descriptor where it was closed."""
    if getattr(stream, "closed", False) is not True or _node(number) is None:
        return stream
    return open(number, "w", encoding=stream.encoding, errors=stream.errors, closefd=False)


def _current_folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""


def _enter(folder: str) -> None:
    if folder:
        os.chdir(folder)


def _umask() -> int:
    os.umask(mask := os.umask(0o077))
    return mask


def _handlers() -> dict[int, Any]:
    if threading.current_thread() is not threading.main_thread():
        return {}  # the main thread alone may set them
    return {number: signal.getsignal(number) for number in SIGNALS}


def _set_handlers(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        if handler is not None and signal.getsignal(number) != handler:  # None is one that Python did not set
            signal.signal(number, handler)


def _timers() -> list[bool]:
    return [signal.getitimer(timer) != (0.0, 0.0) for timer in TIMERS]


def _stop_timers(running: list[bool]) -> None:
    for timer, before in zip(TIMERS, running, strict=True):
        if not before:
            signal.setitimer(timer, 0)


def _limits() -> dict[str, tuple[int, int]]:
    return {name: resource.getrlimit(number) for name, number in LIMITS.items()}


def _set_limits(limits: dict[str, tuple[int, int]]) -> None:
    for name, limit in limits.items():
        if resource.getrlimit(LIMITS[name]) != limit:
            resource.setrlimit(LIMITS[name], limit)


def _set_filters(filters: list[Any]) -> None:
    """Take filters away that turn warnings into errors; others do no harm."""
    for added in [each for each in warnings.filters if each[0] == "error" and each not in filters]:
        warnings.filters.remove(added)  # type: ignore[attr-defined]  # a list, whatever typeshed says


_SETTINGS = (
    Setting("the current folder", _current_folder, _enter),
    Setting("filters of warnings", lambda: list(warnings.filters), _set_filters),
    Setting("the umask", _umask, os.umask),
    Setting("timers", _timers, _stop_timers),
    Setting("handlers of signals", _handlers, _set_handlers),
    Setting("limits of resources", _limits, _set_limits),
    Setting("functions of json", lambda: dict(vars(json)), lambda names: vars(json).update(names)),
)


def _numpys(numpy: ModuleType | None) -> list[Setting]:
    if numpy is None or not hasattr(numpy, "geterr"):  # absent, or half imported
        return []
    return [Setting("numpy's error modes", numpy.geterr, lambda modes: numpy.seterr(**modes))]


def _torchs(torch: Any) -> list[Setting]:
    if torch is None or not hasattr(torch, "get_num_threads"):
        return []
    devices = ("cpu", "cuda")

    def autocast() -> list[Any]:
        torch.autocast_increment_nesting()
        depth = torch.autocast_decrement_nesting()
        return [depth, *(torch.is_autocast_enabled(device) for device in devices)]

    def set_autocast(value: list[Any]) -> None:
        while autocast()[0] > value[0]:
            torch.autocast_decrement_nesting()
        torch.clear_autocast_cache()
        for device, enabled in zip(devices, value[1:], strict=True):
            torch.set_autocast_enabled(device, enabled)

    def set_device(device: Any) -> None:
        torch.set_default_device(None if device == torch.device("cpu") else device)
        if torch.get_default_device() != device:
            raise RuntimeError(device)

    def set_inference(on: bool) -> None:
        _leaving_inference.append(torch.inference_mode(on))
        _leaving_inference[-1].__enter__()

    return [
        Setting("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype, torch.float32),
        Setting("torch's default device", torch.get_default_device, set_device, torch.device("cpu")),
        Setting("torch's inference mode", torch.is_inference_mode_enabled, set_inference, False),
        Setting("torch's gradient mode", torch.is_grad_enabled, torch.set_grad_enabled, True),
        Setting("torch's autocast", autocast, set_autocast, [0, False, False]),
        Setting("torch's anomaly mode", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly, False),
        Setting(
            "torch's deterministic algorithms",
            torch.are_deterministic_algorithms_enabled,
            torch.use_deterministic_algorithms,
            False,
        ),
        Setting("torch's number of threads", torch.get_num_threads, torch.set_num_threads),
    ]
