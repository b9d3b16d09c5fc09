"""Folders of users' modules: their own files see them, and what names a module of theirs; libraries never do."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
)
from pathlib import Path
from types import FrameType, ModuleType

INSTALLED = frozenset(
    {"site-packages", "dist-packages"}
)  # folders whose files change with an installation, not an edit
BUILT_ON = frozenset(
    {
        "cyclopts", "datasets", "filelock", "jinja2", "matplotlib", "moocore", "numpy", "paretune", "peft", "plotly",
        "psutil", "pyarrow", "pydantic", "rich", "ruamel", "safetensors", "scipy", "tokenizers", "torch",
        "transformers", "yaml",
    }
)  # fmt: skip
RESERVED = sys.stdlib_module_names | BUILT_ON | {"__main__"}  # no file of a user's takes the place of these
IMPORTLIB = str(Path(importlib.__file__).parent)

_asked: ContextVar[str] = ContextVar("asked", default="")


class _Source(SourceFileLoader):
    """Compiles a file anew: one edited within a second keeps size and time that a compiled copy is known by."""

    def path_stats(self, path: str) -> dict[str, object]:
        """Refuse, so that no compiled copy is read or written."""
        raise OSError


class FolderFinder:
    """Finds modules in one folder of a user's, for users' own files and for names that are `asked` for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module lies in the folder, or None where it is another's to find."""
        del target
        if path is None and (name in RESERVED or not (name == _asked.get() or _is_by_a_user())):
            return None
        places = [str(self.folder)] if path is None else [each for each in path if self.holds(each)]
        details = (ExtensionFileLoader, EXTENSION_SUFFIXES), (_Source, SOURCE_SUFFIXES)
        for place in places:
            spec = FileFinder(place, *details).find_spec(name)
            if spec is not None and (spec.loader is not None or path is not None or PathFinder.find_spec(name) is None):
                return spec  # a plain folder without modules, such as data, gives way to a package of its name
        return None

    def holds(self, file: str) -> bool:
        """Tell whether a file or folder is a user's in it."""
        place = Path(file)
        return place.is_relative_to(self.folder) and not INSTALLED & set(place.relative_to(self.folder).parts)


def look_in(*folders: str | Path) -> None:
    """Look for users' modules in folders, the last one first, for the rest of the process; `sys.path` stays."""
    for folder in folders:
        place = Path(folder).resolve()
        if place not in looked_in():
            sys.meta_path.insert(0, FolderFinder(place))


def looked_in() -> list[Path]:
    """Return the folders where users' modules are looked for now, the first one first."""
    return [finder.folder for finder in sys.meta_path if isinstance(finder, FolderFinder)]


@contextmanager
def folders_kept() -> Iterator[None]:
    """Look for users' modules, after a block, where they were looked for before it; what libraries add stays."""
    before = list(sys.meta_path)
    try:
        yield
    finally:
        sys.meta_path[:] = [each for each in sys.meta_path if each in before or not isinstance(each, FolderFinder)]


@contextmanager
def looking_in(folder: Path) -> Iterator[None]:
    """Look for users' modules in a folder first, for the length of a block."""
    finder = FolderFinder(folder)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path[:] = [each for each in sys.meta_path if each is not finder]


@contextmanager
def asked(module: str) -> Iterator[None]:
    """Find a module in the folders of users whoever imports it: a study, a task or a file names it."""
    token = _asked.set(module.partition(".")[0])
    try:
        yield
    finally:
        _asked.reset(token)


def reserved_advice(module: str, *folders: Path) -> str:
    """Return what to do where a module of a user's has the name of a library's, or nothing."""
    top = module.partition(".")[0]
    places = [place for folder in (*folders, *looked_in()) for place in (folder / f"{top}.py", folder / top)]
    file = next((place for place in places if top in RESERVED and place.exists()), None)
    return "" if file is None else f"Rename {file}: it never takes the place of the library's {top}."


def _is_by_a_user() -> bool:
    """Tell whether the code that imports something now lies in a folder of a user's."""
    importer = _importer()
    return any(finder.holds(importer) for finder in sys.meta_path if isinstance(finder, FolderFinder))


def _importer() -> str:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(("<frozen importlib", IMPORTLIB)) and file != __file__:
            return str(frame.f_globals.get("__file__") or file)  # code that was made by exec() has no file of its own
        frame = frame.f_back
    return ""
