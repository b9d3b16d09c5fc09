"""The code of a user behind a `module:name`: its file, what that imports and reads, digested for keys; none is run."""

from __future__ import annotations

import ast
import functools
import importlib
import os
import re
import sys
import sysconfig
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from paretune.core.digests import digest, file_digest
from paretune.core.errors import TaskError
from paretune.core.file_lists import files_below
from paretune.core.user_files import KEPT_TREES, OURS, named_files, runs_files
from paretune.core.user_folders import INSTALLED, RESERVED, asked

UNPARSEABLE = (SyntaxError, ValueError, RecursionError, MemoryError)  # the last two where code is nested too deep
REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def code_files(reference: str, folder: Path | None = None) -> dict[str, str]:
    """Digest the files behind `module:name`: the module's own, and all files of a user's that it may import or read.

    Comments, blank lines and layout do not count, docstrings do. An import counts wherever it stands, in a function or
    under a condition too. A module that is not Python, or not parseable, counts byte by byte, and so does a file that a
    module names and reads, see `user_files.named_files`. A module that runs files whose names it does not show counts
    with all modules of its folder.

    Args:
        reference: `module:name`; the name does not matter.
        folder: Where modules are looked for first.

    Returns:
        File, named from where it is imported, to its digest. Empty for a module of paretune, of Python, or of nowhere.
        What lies in `site-packages` counts only where it is the module itself.

    Example:
        >>> code_files("paretune.methods.experts:train_experts")
        {}
    """
    return {name: _digest_file(file) for name, file in files_behind(reference, folder).items()}


def files_behind(reference: str, folder: Path | None = None) -> dict[str, Path]:
    """Return the files that `code_files` digests, by the names it gives them."""
    importlib.invalidate_caches()  # a file written a moment ago is not yet in the listing Python keeps of its folder
    module = reference.partition(":")[0]
    first = module_file(module, folder)
    if first is None or _is_ours_or_pythons(first):
        return {}
    root = first.parents[module.count(".") + (first.stem == "__init__")] if folder is None else folder
    files: dict[str, Path] = {}
    seen: set[str] = set()
    waiting = _with_packages([module])
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        file = module_file(name, folder)
        if file is None or _is_ours_or_pythons(file):
            continue
        local = folder is not None and find_local(name, folder) == file
        users = local or not INSTALLED & set(file.parts)
        if not users and name != module:
            continue
        archived = file.suffix != ".py" and zipfile.is_zipfile(file)
        files[_beside(file, root) if archived else _shown(name, file)] = file
        tree = _tree(file)
        if users and tree is not None:
            waiting += imported_names(tree, name, file.stem == "__init__")
            beside = [*named_files(tree, file, root), *(_modules_beside(file) if runs_files(tree) else ())]
            files |= {_beside(each, root): each for each in beside}
    return files


def _modules_beside(file: Path) -> list[Path]:
    try:
        return files_below(file.parent, ("**", "*.py"))
    except TaskError as error:
        raise TaskError(f"folder of {file}, which runs modules that it does not name: {error}") from error


def _digest_file(file: Path) -> str:
    tree = _tree(file)
    return file_digest(file) if tree is None else _digest_tree(tree)


@functools.lru_cache(KEPT_TREES)
def _digest_tree(tree: ast.Module) -> str:
    return digest(list(_symbols(tree)))


def _beside(file: Path, root: Path) -> str:
    return Path(os.path.relpath(file, root)).as_posix()


@functools.cache
def loaded_files(reference: str, folder: Path | None = None) -> Mapping[str, str]:
    """Return `code_files`, read once a process: what is imported stays what it was, whatever is edited meanwhile."""
    return code_files(reference, folder)


def loaded_digest(reference: str, folder: Path | None = None) -> str:
    """Digest the code behind `module:name`, of files that were read once a process; empty where none is a user's."""
    return files_digest(reference, loaded_files(reference, folder))


def loaded_code(references: Iterable[str]) -> dict[str, str]:
    """Digest the code behind several `module:name`, once a process; those of which none is a user's are left out."""
    found = {each: loaded_digest(each) for each in sorted(set(references))}
    return {reference: code for reference, code in found.items() if code}


def files_digest(reference: str, files: Mapping[str, str]) -> str:
    """Digest what `code_files` returns; the module's own counts whatever its name: renamed, it is no other code."""
    path = reference.partition(":")[0].replace(".", "/")
    own = (f"{path}.py", f"{path}/__init__.py")
    return digest({"" if name in own else name: code for name, code in files.items()}) if files else ""


def references_in(value: object) -> Iterator[str]:
    """Yield every string of plain data that reads as `module:name`.

    Example:
        >>> list(references_in({"rate": 0.1, "weighting": "idea:Mine", "gates": [{"kind": "my.gates:Block"}]}))
        ['idea:Mine', 'my.gates:Block']
    """
    if isinstance(value, str):
        if REFERENCE.fullmatch(value):
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from references_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from references_in(item)


def module_file(module: str, folder: Path | None = None) -> Path | None:
    """Return the file of a module in a folder or on the import path, without importing it or its packages.

    Returns:
        Its file, or the archive that holds it; None for a module of Python, a package without `__init__.py`, and one
        that is nowhere.
    """
    top, *rest = module.split(".")
    if top in sys.stdlib_module_names:
        return None
    if folder is not None and top not in RESERVED and (local := find_local(module, folder)) is not None:
        return local
    with asked(top):
        file, folders = _find_top(top)
    if file is not None and not file.exists() and (archives := [each for each in file.parents if each.is_file()]):
        return archives[0]
    for name in rest:
        file = _find_in(folders, name)
        if file is None:  # a package without __init__.py has several folders, and no file
            folders = [inner for each in folders if (inner := each / name).is_dir()]
        else:
            folders = [file.parent] if file.stem == "__init__" else []
    return file


def find_local(module: str, folder: Path) -> Path | None:
    """Return the file of a module in a folder, or None."""
    base = folder.joinpath(*module.split("."))
    candidates = (base / "__init__.py", base.with_suffix(".py"))  # Python, too, prefers the package
    return next((file for file in candidates if file.is_file()), None)


@functools.lru_cache(KEPT_TREES)
def imported_names(tree: ast.Module, module: str, is_package: bool) -> tuple[str, ...]:
    """List the modules a file may import, with the packages that hold them; names in them may be among the list."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: len(module.split(".")) - node.level + is_package] if node.level else []
            stem = [*base, *([node.module] if node.module else [])]
            names.update([".".join(stem), *(".".join([*stem, alias.name]) for alias in node.names)])
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__"):
            names.update(str(each.value) for each in node.args[:1] if isinstance(each, ast.Constant))
    return tuple(_with_packages(names))  # one for all who ask, so nobody may change it


def _with_packages(names: Iterable[str]) -> list[str]:
    split = [name.split(".") for name in names]
    whole = [parts for parts in split if all(part.isidentifier() for part in parts)]
    return [".".join(parts[:length]) for parts in whole for length in range(1, len(parts) + 1)]


def _called(node: ast.Call) -> str:
    return getattr(node.func, "id", getattr(node.func, "attr", ""))


def _find_top(name: str) -> tuple[Path | None, list[Path]]:
    """Return the file of a top-level module, and the folders in which its submodules lie."""
    finders = [finder for finder in sys.meta_path if hasattr(finder, "find_spec") and name != "__main__"]
    found = (finder.find_spec(name, None) for finder in finders)
    spec = next((each for each in found if each is not None), None)
    if spec is not None:
        file = Path(spec.origin) if spec.has_location and spec.origin is not None else None
        return file, [Path(each) for each in spec.submodule_search_locations or ()]
    loaded = sys.modules.get(name)  # the script that is being run, or a module that its loader alone knows
    path = getattr(loaded, "__file__", None)
    return Path(path) if path else None, [Path(each) for each in getattr(loaded, "__path__", ())]


def _find_in(folders: Iterable[Path], name: str) -> Path | None:
    for folder in folders:
        endings = (f"{name}/__init__.py", *(name + suffix for suffix in EXTENSION_SUFFIXES), f"{name}.py")
        found = next((file for each in endings if (file := folder / each).is_file()), None)
        if found is not None:
            return found
    return None


def is_a_users(file: Path) -> bool:
    """Whether a file is a user's: none of paretune, of Python or of an installed package, and a file at all."""
    return file.suffix == ".py" and not INSTALLED & set(file.parts) and not _is_ours_or_pythons(file)


def _is_ours_or_pythons(file: Path) -> bool:
    parents = file.resolve().parents
    if OURS in parents:
        return True
    pythons = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}
    return bool(pythons & set(parents)) and not INSTALLED & set(file.parts)


def _shown(module: str, file: Path) -> str:
    if module == "__main__":
        return file.name
    return module.replace(".", "/") + ("/__init__.py" if file.stem == "__init__" else "".join(file.suffixes))


def _tree(file: Path) -> ast.Module | None:
    return _parsed(file.read_bytes()) if file.suffix == ".py" else None


@functools.lru_cache(KEPT_TREES)
def _parsed(content: bytes) -> ast.Module | None:
    """Parse Python, once for equal content: every plan of a study asks for the same files again."""
    try:
        return ast.parse(content)
    except UNPARSEABLE:  # whoever imports it will hear of it; here it is a file like any other
        return None


def _symbols(tree: ast.AST) -> Iterator[str]:
    """Write a syntax tree as words, the same in every version of Python: no places, no empty fields."""
    waiting: list[object] = [tree]
    while waiting:  # not recursive: a long sum is a deep tree
        item = waiting.pop()
        if isinstance(item, ast.AST):
            yield f"<{type(item).__name__}"
            waiting.append(_END)
            for name, value in reversed(list(ast.iter_fields(item))):
                if isinstance(item, ast.Constant) or (value is not None and value != []):
                    waiting += [value, _Field(name)]
        elif isinstance(item, list):
            yield "["
            waiting += [_END, *reversed(item)]
        else:
            yield str(item) if isinstance(item, _Field) else repr(item)


class _Field(str):
    """A word of `_symbols` that is no constant of the code."""


_END = _Field(">")
