"""A user's modules: found in the task's folder, imported apart from those of other tasks."""

from __future__ import annotations

import ast
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from paretune.core.checks import did_you_mean
from paretune.core.errors import StopRequested, TaskError, UnknownNameError
from paretune.core.imports import imported
from paretune.core.user_calls import described, user_line
from paretune.core.user_code import UNPARSEABLE, files_behind, module_file
from paretune.core.user_files import watched
from paretune.core.user_folders import RESERVED, looked_in, looking_in, reserved_advice

Stamp = tuple[int, int]  # time of change in nanoseconds, size in bytes


@dataclass
class _Imported:
    """What was imported from one folder, kept out of `sys.modules` while it is not in use.

    Attributes:
        modules: By name.
        stamps: Of their files, and of what they read while they were imported.
        path: Folders that they put on `sys.path`, in use as long as they are.
    """

    modules: dict[str, ModuleType] = field(default_factory=dict)
    stamps: dict[Path, Stamp] = field(default_factory=dict)
    path: list[str] = field(default_factory=list)


_folders: dict[Path, _Imported] = {}
_lock = threading.RLock()  # sys.meta_path and sys.modules belong to the whole process


def split_reference(reference: str) -> tuple[str, str]:
    """Split `module:name`.

    Raises:
        TaskError: If it has another form.

    Example:
        >>> split_reference("rewards:brevity")
        ('rewards', 'brevity')
    """
    module, _, name = reference.partition(":")
    if not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise TaskError(
            f"reference must be written as module:name, got '{reference}'. For the function brevity in rewards.py "
            "write rewards:brevity."
        )
    return module, name


@contextmanager
def imports_from(folder: Path | None) -> Iterator[None]:
    """Let the modules of a folder import each other for the length of a block; nobody else finds them.

    They are put away afterwards and brought back next time. So two tasks may both have a `rewards.py` and siblings of
    equal names, and functions may import their siblings late. `sys.path` is as before afterwards.

    Args:
        folder: Folder of a task; None changes nothing.
    """
    if folder is None:
        yield
        return
    folder = folder.resolve()
    with _lock:
        kept = _folders.setdefault(folder, _Imported())
        before, path = dict(sys.modules), list(sys.path)
        permanent = folder in looked_in() or any(entry and Path(entry).resolve() == folder for entry in sys.path)
        owned = _owned_names(folder)
        hidden = {
            name: module
            for name, module in before.items()
            if name.partition(".")[0] in owned and not _belongs_to(folder, name)
        }
        for name in hidden:
            del sys.modules[name]
        for name, module in kept.modules.items():
            sys.modules.setdefault(name, module)
        sys.path[:0] = kept.path
        try:
            with looking_in(folder):
                yield
        finally:
            kept.path = [entry for entry in sys.path if entry not in path]
            sys.path[:] = path
            for name, module in list(sys.modules.items()):
                if before.get(name) is module or not _belongs_to(folder, name):
                    continue
                if name in hidden or not permanent:
                    kept.modules[name] = sys.modules.pop(name)
                    if (file := getattr(module, "__file__", None)) is not None:
                        kept.stamps.setdefault(Path(file), _stamp(Path(file)))
            sys.modules.update(hidden)


def load_attribute(reference: str, folder: Path | None = None, depends: Iterable[Path] = ()) -> object:
    """Import what `module:name` refers to, first from a folder, then from what is installed.

    A file that changed since it was imported, or read by an import, is imported again, with all modules of its folder.

    Args:
        reference: `module:name`.
        folder: Of a task.
        depends: What its modules are declared to read.

    Raises:
        TaskError: If the reference has another form, its module cannot be imported, or reads an undeclared file.
        UnknownNameError: If the module has no such name.
    """
    module_name, name = split_reference(reference)
    if folder is not None:
        folder = folder.resolve()
        _forget_changed(folder)
    with imports_from(folder), watched_reads(reference, folder, depends) as opened:
        try:
            module = imported(module_name)
        except StopRequested:
            raise
        except BaseException as error:  # importing runs the user's code, which may raise anything
            raise TaskError(
                f"module of '{reference}' must be importable{_in(folder)}, got {described(error)}{user_line(error)}. "
                "Correct the module, or install what it needs."
            ) from error
        if not hasattr(module, name):
            raise _unknown(reference, name, list(vars(module)))
        found = getattr(module, name)
    if folder is not None:
        _folders[folder].stamps |= {file: _stamp(file) for file in opened if file.is_file()}
    return found


@contextmanager
def watched_reads(reference: str, folder: Path | None, depends: Iterable[Path]) -> Iterator[set[Path]]:
    """Refuse what code of a task's folder reads there and no key covers.

    Args:
        reference: `module:name` of the code.
        folder: The task's folder; None watches nothing.
        depends: What it is declared to read.

    Yields:
        The files that were read below the folder.

    Raises:
        TaskError: If one of them is not covered.
    """
    if folder is None:
        yield set()
        return
    with watched(folder, lambda: [*files_behind(reference, folder).values(), *depends], reference) as opened:
        yield opened


def check_reference(reference: str, folder: Path | None = None) -> None:
    """Check that `module:name` exists, without running any code of its file.

    Raises:
        TaskError: If the reference has another form, its module is nowhere, or its file is not Python.
        UnknownNameError: If its file defines no such name.
    """
    module, name = split_reference(reference)
    file = module_file(module, folder)
    if folder is not None and (advice := reserved_advice(module, folder)):
        raise TaskError(f"module of '{reference}' must not have the name of a library. {advice}")
    if file is None:
        raise TaskError(
            f"module of '{reference}' must lie in the task's folder or be installed, got no '{module}'{_in(folder)}. "
            f"Create {module.replace('.', '/')}.py there, or correct the name."
        )
    if file.suffix != ".py":
        return  # compiled; whether it has the name shows when it is imported
    names = _defined_names(_parse(file))
    if names is not None and name not in names:
        raise _unknown(reference, name, sorted(names))


def _belongs_to(folder: Path, name: str) -> bool:
    """Tell whether the top-level package of a loaded module lies directly in a folder."""
    top = sys.modules.get(name.partition(".")[0])
    file = getattr(top, "__file__", None)
    if file is None:
        return any(Path(part) == folder / name.partition(".")[0] for part in getattr(top, "__path__", ()))
    path = Path(file)
    return (path.parent.parent if path.stem == "__init__" else path.parent) == folder


def _owned_names(folder: Path) -> set[str]:
    """List the top-level modules of a folder that may take the place of loaded ones from elsewhere."""
    files = {file.stem for file in folder.glob("*.py")} | {file.parent.name for file in folder.glob("*/__init__.py")}
    return files - RESERVED


def _stamp(file: Path) -> Stamp:
    status = file.stat()
    return status.st_mtime_ns, status.st_size


def _forget_changed(folder: Path) -> None:
    kept = _folders.get(folder)
    if kept is not None and any(not file.is_file() or _stamp(file) != stamp for file, stamp in kept.stamps.items()):
        del _folders[folder]


def _parse(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes(), filename=str(file))
    except UNPARSEABLE as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise TaskError(f"{file}{line} must be Python, got an error: {described(error)}. Correct it.") from error


def _defined_names(tree: ast.Module) -> set[str] | None:
    """List the names a file defines, or None when that shows only when it runs."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update(alias.asname or alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return None if names & {"*", "__getattr__"} else names


def _unknown(reference: str, name: str, names: list[str]) -> UnknownNameError:
    public = sorted(known for known in names if not known.startswith("_"))
    return UnknownNameError(
        f"name of '{reference}' must be defined in its module, got '{name}'."
        f"{did_you_mean(name, public) or ' Define it there, or correct the name.'}"
    )


def _in(folder: Path | None) -> str:
    return f" in {folder}" if folder is not None else ""
