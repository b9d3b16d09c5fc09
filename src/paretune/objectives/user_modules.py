"""A user's modules: found in the task's folder, imported apart from those of other tasks."""

from __future__ import annotations

import ast
import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from paretune.core.checks import did_you_mean
from paretune.core.errors import TaskError, UnknownNameError
from paretune.core.user_code import module_file

Stamp = tuple[int, int]  # time of change in nanoseconds, size in bytes


@dataclass
class _Shelf:
    """The modules that were imported from one folder, kept out of `sys.modules` while they are not in use."""

    modules: dict[str, ModuleType] = field(default_factory=dict)
    stamps: dict[Path, Stamp] = field(default_factory=dict)


_shelves: dict[Path, _Shelf] = {}
_lock = threading.RLock()  # sys.path and sys.modules belong to the whole process


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
    """Put a folder first on the import path for the length of a block.

    Modules imported from it are shelved afterwards and brought back next time. So two tasks may both have a
    `rewards.py` and siblings of equal names, and functions may import their siblings late.

    Args:
        folder: Folder of a task; None changes nothing.
    """
    if folder is None:
        yield
        return
    folder = folder.resolve()
    with _lock:
        shelf = _shelves.setdefault(folder, _Shelf())
        before = dict(sys.modules)
        permanent = any(entry and Path(entry).resolve() == folder for entry in sys.path)
        owned = _owned_names(folder)
        hidden = {
            name: module
            for name, module in before.items()
            if name.partition(".")[0] in owned and not _belongs_to(folder, name)
        }
        for name in hidden:
            del sys.modules[name]
        for name, module in shelf.modules.items():
            sys.modules.setdefault(name, module)
        sys.path.insert(0, str(folder))
        try:
            yield
        finally:
            sys.path.remove(str(folder))
            for name, module in list(sys.modules.items()):
                if before.get(name) is module or not _belongs_to(folder, name):
                    continue
                if name in hidden or not permanent:
                    shelf.modules[name] = sys.modules.pop(name)
                    if (file := getattr(module, "__file__", None)) is not None:
                        shelf.stamps.setdefault(Path(file), _stamp(Path(file)))
            sys.modules.update(hidden)


def load_attribute(reference: str, folder: Path | None = None) -> object:
    """Import what `module:name` refers to, first from a folder, then from what is installed.

    A file that changed since it was imported is imported again, with all modules of its folder.

    Raises:
        TaskError: If the reference has another form or its module cannot be imported.
        UnknownNameError: If the module has no such name.
    """
    module_name, name = split_reference(reference)
    if folder is not None:
        _forget_changed(folder.resolve())
    importlib.invalidate_caches()  # a file written a moment ago is not yet in the listing Python keeps of its folder
    with imports_from(folder):
        try:
            module = importlib.import_module(module_name)
        except Exception as error:  # importing runs the user's code, which may raise anything
            raise TaskError(
                f"module of '{reference}' must be importable{_in(folder)}, got {type(error).__name__}: {error}. "
                "Correct the module, or install what it needs."
            ) from error
        if not hasattr(module, name):
            raise _unknown(reference, name, list(vars(module)))
        return getattr(module, name)


def check_reference(reference: str, folder: Path | None = None) -> None:
    """Check that `module:name` exists, without running any code of its file.

    Raises:
        TaskError: If the reference has another form, its module is nowhere, or its file is not Python.
        UnknownNameError: If its file defines no such name.
    """
    module, name = split_reference(reference)
    file = module_file(module, folder)
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
    return files - sys.stdlib_module_names - {"__main__", "paretune"}


def _stamp(file: Path) -> Stamp:
    status = file.stat()
    return status.st_mtime_ns, status.st_size


def _forget_changed(folder: Path) -> None:
    shelf = _shelves.get(folder)
    if shelf is not None and any(not file.is_file() or _stamp(file) != stamp for file, stamp in shelf.stamps.items()):
        del _shelves[folder]


def _parse(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes(), filename=str(file))
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise TaskError(f"{file}{line} must be Python, got an error: {error}. Correct it.") from error


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
