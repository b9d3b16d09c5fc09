"""Files that a user's code reads beside its modules: those it names, those it is told to depend on, those it opens."""

from __future__ import annotations

import ast
import functools
import os
import re
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from paretune.core.cache import cache_folder
from paretune.core.digests import file_digest
from paretune.core.errors import ParetuneError, TaskError
from paretune.core.file_lists import Tally, is_ignored, matching

LONGEST_NAME = 255  # letters; a longer text in the code names no file
KEPT_TREES = 256  # of modules that were parsed, in memory
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
OURS = Path(__file__).resolve().parents[1]
SYSTEMS = ("/dev", "/etc", "/lib", "/lib64", "/proc", "/sys", "/tmp", "/usr", "/var/tmp")
CACHES = ("HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "XDG_CACHE_HOME")  # variables that name others' caches
LISTINGS = ("os.listdir", "os.scandir")  # events of a folder whose names are read
EVENTS = ("open", "sqlite3.connect", *LISTINGS)
IMPORTS, ARCHIVES = "<frozen importlib", "<frozen zipimport>"  # what looks for modules
DECLARATION = "DEPENDS"  # a module's list of the files it reads

_watching: list[Callable[[str | bytes | os.PathLike[str]], None]] = []
_listening: list[bool] = []


def named_files(tree: ast.AST, file: Path, root: Path) -> list[Path]:
    """List the files that a module declares as `DEPENDS`, and those below a folder that it names in its code and reads.

    A text in the code counts where it is the path of a file, from the module, the folder, or a folder that is named so
    too. Where the module also writes files, only what it declares counts, as it may write what it names.

    Args:
        tree: Syntax tree of the module.
        file: Its file.
        root: The folder; nothing outside it counts but what is declared.

    Raises:
        TaskError: If it declares too much.
    """
    folders, tally = list(dict.fromkeys([file.parent, root])), Tally()
    declared, texts = _named_texts(tree)
    try:
        found = {path for text in sorted(declared) for folder in folders for path in matching(text, folder, tally)}
    except ParetuneError as error:
        raise TaskError(f"{DECLARATION} of {file}: {error}") from error
    names = [text for text in sorted(texts) if _may_name(text)]
    real = root.resolve()
    for folder in folders:  # it grows
        inner = [folder / name for name in names]
        found.update(path for path in inner if path.is_file() and path.resolve().is_relative_to(real))
        more = (path for path in inner if path.is_dir() and path not in folders)
        folders += list(more)[: MOST_FOLDERS - len(folders)]
    return sorted({path for path in found if path.resolve() != file.resolve()})


@functools.lru_cache(KEPT_TREES)
def _named_texts(tree: ast.AST) -> tuple[frozenset[str], frozenset[str]]:
    """Return the texts that a module declares, and all that may name files that it reads."""
    declared = frozenset(_declared(tree))
    return declared, declared if _writes(_calls(tree)) else declared.union(_texts(tree))


@functools.lru_cache(KEPT_TREES)
def runs_files(tree: ast.AST) -> bool:
    """Tell whether a module may run other files whose names do not show in its code."""
    calls = _calls(tree)
    by_name = any(
        _name(call.func) in ("import_module", "__import__")
        and not all(isinstance(each, ast.Constant) for each in call.args[:1])
        for call in calls
    )
    path = any(isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.path" for node in ast.walk(tree))
    return by_name or path or any(_name(call.func) in IMPORTERS for call in calls)


def data_digests(paths: Iterable[Path], folder: Path) -> dict[str, str]:
    """Digest files by their paths from a folder."""
    return {Path(os.path.relpath(path, folder)).as_posix(): file_digest(path) for path in paths}


@contextmanager
def watched(folder: Path, known: Callable[[], Iterable[Path]], what: str) -> Iterator[set[Path]]:
    """Refuse what a block opens to read, where its changes would go unnoticed.

    Hidden files do not count, nor those of Python, of the system, of caches and temporary folders, nor what a compiled
    library or another process reads, which nobody sees.

    Args:
        folder: Folder of the task.
        known: Returns the files and folders that keys cover; called where something was opened.
        what: Is called in the block, for the message.

    Yields:
        The files that were opened, complete after the block.

    Raises:
        TaskError: If a file was read that none of them is or holds.
    """
    _listen()
    heard: set[str] = set()
    opened: set[Path] = set()

    def hear(path: str | bytes | os.PathLike[str]) -> None:
        with suppress(OSError):  # the current folder was removed
            heard.add(os.path.abspath(os.fsdecode(path)))

    _watching.append(hear)
    try:
        yield opened
    finally:
        _watching.remove(hear)
    outside = _others_folders() if heard else frozenset()
    opened.update(Path(file) for file in heard if _is_a_persons(file, str(folder), outside))
    if not opened:
        return
    covered = {path.resolve() for path in known()}
    partly = {parent for path in covered for parent in path.parents}  # a list of their names is made to find them
    for file in sorted(opened):
        place = file.resolve()
        wanted = file.is_file() or (file.is_dir() and place not in partly)
        if wanted and not covered & {place, *place.parents}:
            name = Path(os.path.relpath(file, folder)).as_posix()
            kind = "folder" if file.is_dir() else "file"
            raise TaskError(
                f"{kind} '{name}' that {what} reads must be named in depends, got none of that name. Add "
                f"depends: [{name}] to the task file, so that its changes count; keep what changes by itself, such as "
                "a cache, in a hidden folder such as .cache."
            )


def _others_folders() -> frozenset[str]:
    """Return the folders whose files come with an installation, or change by themselves."""
    pythons = [sys.prefix, sys.base_prefix, *map(sysconfig.get_path, ("stdlib", "platstdlib")), str(OURS)]
    caches = [str(cache_folder("")), "~/.cache", *(os.environ.get(name, "") for name in CACHES)]
    named = [os.path.expanduser(each) for each in (*pythons, *caches, tempfile.gettempdir(), *SYSTEMS) if each]
    return frozenset(path for each in named for path in (os.path.abspath(each), os.path.realpath(each)))


def _is_a_persons(file: str, folder: str, others: Iterable[str]) -> bool:
    """Tell whether a file may hold what a person wrote for a task: none of others' folders, unless the task is there.

    Args:
        file: Whole path of the file.
        folder: Whole path of the task's folder.
        others: Folders whose files do not count. In one that holds the task, such as `/tmp` or `/usr` where it lies in
            `/tmp/mine/task`, what is beside the task counts: all of `/tmp/mine`.
    """
    shared = os.path.commonpath([file, folder])
    if any(map(is_ignored, file.removeprefix(shared).split(os.sep))):
        return False
    places = [place for place in others if place != folder and _is_below(file, place)]
    return all(_is_below(shared, place) and shared != place for place in places)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(os.path.join(folder, ""))


def _listen() -> None:
    """Hear of every file that this process opens, from now on: an audit hook cannot be taken away again."""
    if not _listening:
        sys.addaudithook(_heard)
        _listening.append(True)


def _heard(event: str, arguments: tuple[object, ...]) -> None:
    if not _watching or event not in EVENTS:
        return
    path = arguments[0]
    by = sys._getframe(1).f_code.co_filename
    if by == ARCHIVES or (event in LISTINGS and by.startswith(IMPORTS)):  # whose modules count as code
        return
    if isinstance(path, (str, bytes, os.PathLike)) and (event != "open" or _is_read(*arguments[1:3])):
        for hear in _watching:
            hear(path)


def _is_read(mode: object, flags: object) -> bool:
    if isinstance(mode, str):
        return "r" in mode or ("a" in mode and "+" in mode)
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


def _calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def _name(node: ast.AST) -> str:
    return str(getattr(node, "id", getattr(node, "attr", "")))


def _writes(calls: Iterable[ast.Call]) -> bool:
    """Tell whether a call writes a file, or opens one in a mode that writes, or in one that only shows when it runs."""
    for call in calls:
        if _name(call.func) in WRITES:
            return True
        if _name(call.func) == "open":
            modes = [*call.args[1:2], *(each.value for each in call.keywords if each.arg == "mode")]
            own = call.args[:1] if isinstance(call.func, ast.Attribute) else []  # the mode where it is a Path's
            known = [ast.unparse(mode) for mode in (*modes, *own)]
            if any(MODE.fullmatch(mode) for mode in known) or not all(map(_is_text, modes)):
                return True
    return False
