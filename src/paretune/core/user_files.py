"""Files that a user's code reads beside its modules: those it names, those it is told to depend on, those it opens."""

from __future__ import annotations

import ast
import glob
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from paretune.core.digests import file_digest
from paretune.core.errors import TaskError
from paretune.core.user_folders import INSTALLED

LONGEST_NAME = 255  # letters; a longer text in the code names no file
MOST_FOLDERS = 50  # named in one module, that names of files are tried in
WRITES = frozenset(
    {
        "FileHandler", "RotatingFileHandler", "dump", "mkdir", "save", "save_file", "savetxt", "savez", "to_csv",
        "to_json", "to_parquet", "to_pickle", "touch", "write", "write_bytes", "write_text", "writelines",
    }
)  # fmt: skip  # what code is called that writes files: it may write those it names
IMPORTERS = frozenset(
    {
        "SourceFileLoader", "exec", "exec_module", "iter_modules", "load_module", "run_module", "run_path",
        "spec_from_file_location", "walk_packages",
    }
)  # fmt: skip  # what code is called that runs other files, whose names show only when it runs
MODE = re.compile(r"'[rbt]*[wax+][rbt+]*'")  # of a file that is opened to write
DECLARATION = "DEPENDS"  # a module's list of the files it reads

_watching: list[Callable[[str | bytes | os.PathLike[str]], None]] = []
_listening: list[bool] = []


def named_files(tree: ast.AST, file: Path, root: Path) -> list[Path]:
    """List the files below a folder that a module names in its code and reads.

    A text in the code counts where it is the path of a file, from the module, the folder, or a folder that is named so
    too. Where the module also writes files, only what it lists as `DEPENDS` counts, as it may write what it names.

    Args:
        tree: Syntax tree of the module.
        file: Its file.
        root: The folder; nothing outside it counts.
    """
    folders = list(dict.fromkeys([file.parent, root]))
    declared = _declared(tree)
    texts = declared if WRITES & set(_called(tree)) or _opens_to_write(tree) else {*declared, *_texts(tree)}
    found = {path for text in declared for folder in folders for path in matching(text, folder)}
    names = [text for text in sorted(texts) if _may_name(text)]
    for folder in folders:  # it grows
        inner = [folder / name for name in names]
        found.update(path for path in inner if path.is_file())
        more = (path for path in inner if path.is_dir() and path not in folders)
        folders += list(more)[: MOST_FOLDERS - len(folders)]
    real = root.resolve()
    return sorted({path for path in found if path.resolve().is_relative_to(real) and path.resolve() != file.resolve()})


def runs_files(tree: ast.AST) -> bool:
    """Tell whether a module may run other files whose names do not show in its code."""
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    by_name = any(
        _name(node.func) in ("import_module", "__import__")
        and not all(isinstance(a, ast.Constant) for a in node.args[:1])
        for node in imports
    )
    path = any(isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.path" for node in ast.walk(tree))
    return by_name or path or bool(IMPORTERS & set(_called(tree)))


def matching(text: str, folder: Path) -> list[Path]:
    """List the files that a path, a folder or a pattern such as `words/*.txt` names, from a folder."""
    if not text or "\0" in text:
        return []
    place = folder / Path(text).expanduser()
    places = map(Path, glob.glob(str(place), recursive=True)) if glob.has_magic(text) else [place]
    return sorted({file for each in places for file in ([each] if each.is_file() else files_below(each))})


def files_below(folder: Path, suffix: str = "") -> Iterator[Path]:
    """Yield the files of a folder and its folders, but hidden ones and installed packages."""
    for base, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_nobodys(name))
        yield from (Path(base, name) for name in sorted(files) if name.endswith(suffix) and not _is_nobodys(name))


def data_digests(paths: Iterable[Path], folder: Path) -> dict[str, str]:
    """Digest files by their paths from a folder."""
    return {Path(os.path.relpath(path, folder)).as_posix(): file_digest(path) for path in paths}


@contextmanager
def watched(folder: Path, known: Callable[[], Iterable[Path]], what: str) -> Iterator[set[Path]]:
    """Refuse what a block opens to read below a folder, where its changes would go unnoticed.

    Hidden files do not count, nor what a compiled library or another process reads, which nobody sees.

    Args:
        folder: The folder.
        known: Returns the files and folders that keys cover; called where something was opened.
        what: Is called in the block, for the message.

    Yields:
        The files that were opened, complete after the block.

    Raises:
        TaskError: If a file was read that none of them is or holds.
    """
    _listen()
    opened: set[Path] = set()
    start = os.path.join(str(folder), "")

    def hear(path: str | bytes | os.PathLike[str]) -> None:
        full = os.path.abspath(os.fsdecode(path))
        if full.startswith(start) and not any(map(_is_nobodys, full.removeprefix(start).split(os.sep))):
            opened.add(Path(full))

    _watching.append(hear)
    try:
        yield opened
    finally:
        _watching.remove(hear)
    if not opened:
        return
    covered = {path.resolve() for path in known()}
    for file in sorted(opened):
        place = file.resolve()
        if file.is_file() and not covered & {place, *place.parents}:
            name = file.relative_to(folder).as_posix()
            raise TaskError(
                f"file '{name}' that {what} reads must be named in depends, got none of that name. Add "
                f"depends: [{name}] to the task file, so that its changes count; keep what changes by itself, such as "
                f"a cache, outside {folder}."
            )


def _is_nobodys(name: str) -> bool:
    return name.startswith(".") or name == "__pycache__" or name in INSTALLED


def _listen() -> None:
    """Hear of every file that this process opens, from now on: an audit hook cannot be taken away again."""
    if not _listening:
        sys.addaudithook(_heard)
        _listening.append(True)


def _heard(event: str, arguments: tuple[object, ...]) -> None:
    if not _watching or event not in ("open", "sqlite3.connect"):
        return
    path = arguments[0]
    if isinstance(path, (str, bytes, os.PathLike)) and (event != "open" or _is_read(*arguments[1:3])):
        for hear in _watching:
            hear(path)


def _is_read(mode: object, flags: object) -> bool:
    if isinstance(mode, str):
        return "r" in mode
    return isinstance(flags, int) and not flags & (os.O_WRONLY | os.O_TRUNC)


def _declared(tree: ast.AST) -> set[str]:
    """Return the texts of a module's `DEPENDS`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Assign) and [_name(target) for target in node.targets] == [DECLARATION]:
            return set(_texts(node.value))
    return set()


def _texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _may_name(text: str) -> bool:
    parts = Path(text).parts if 0 < len(text) <= LONGEST_NAME and text.isprintable() else ()
    return bool(parts) and not text.startswith(("/", "~")) and any(part not in (".", "..") for part in parts)


def _called(tree: ast.AST) -> Iterator[str]:
    yield from (_name(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call))


def _name(node: ast.AST) -> str:
    return str(getattr(node, "id", getattr(node, "attr", "")))


def _opens_to_write(tree: ast.AST) -> bool:
    """Tell whether a module opens a file in a mode that writes, or in one that only shows when it runs."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) == "open":
            modes = [*node.args[1:2], *(each.value for each in node.keywords if each.arg == "mode")]
            own = node.args[:1] if isinstance(node.func, ast.Attribute) else []  # the mode where it is a Path's
            known = [ast.unparse(mode) for mode in (*modes, *own)]
            if any(MODE.fullmatch(mode) for mode in known) or not all(map(_is_text, modes)):
                return True
    return False
