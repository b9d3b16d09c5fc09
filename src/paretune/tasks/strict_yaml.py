"""YAML that knows its lines and refuses a key given twice."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from paretune.core.errors import ConfigError

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Place:
    """Where settings come from, for messages.

    Attributes:
        name: Name of the file, or what stands for it.
        folder: Folder that relative paths start from.
        lines: Line of each key, counted from 1; empty where there is no file.
    """

    name: str
    folder: Path
    lines: Mapping[KeyPath, int] = field(default_factory=dict)

    def at(self, *path: str | int) -> str:
        """Name a key for people, `task.yaml:7: objectives.brevity.range`."""
        known = next((path[:length] for length in range(len(path), 0, -1) if path[:length] in self.lines), None)
        line = f":{self.lines[known]}" if known is not None else ""
        return f"{self.name}{line}: {'.'.join(map(str, path))}"

    def resolve(self, path: str) -> Path:
        """Return a path of the settings as an absolute one."""
        return (self.folder / Path(path).expanduser()).resolve()


def read_yaml(file: Path) -> tuple[dict[str, object], Place]:
    """Read a YAML file that holds a mapping.

    Returns:
        Its content, and the place that names its keys in messages.

    Raises:
        ConfigError: If it is not YAML, not a mapping, or has a key twice.
    """
    try:
        loader = _Loader(file.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        lines: dict[KeyPath, int] = {}
        if node is not None:
            _walk(node, (), lines, str(file), set())
        data = loader.construct_document(node) if node is not None else None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} must be UTF-8 text, got other bytes ({error}). Save it as UTF-8.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{file}{line} must be YAML, got an error: {problem}. Correct it.") from error
    if not isinstance(data, dict):
        got = "an empty file" if data is None else type(data).__name__
        raise ConfigError(f"{file} must hold keys and values, got {got}. Write them as key: value.")
    return {str(key): value for key, value in data.items()}, Place(str(file), file.resolve().parent, lines)


class _Loader(yaml.SafeLoader):
    """PyYAML's loader, for which `1e-2` is a number, as it is in YAML 1.2, and not a text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _walk(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], file: str, seen: set[int]) -> None:
    if id(node) in seen:  # an alias: its content was read where it stands first
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            _walk(item, (*path, index), lines, file, seen)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            line = key.start_mark.line + 1
            if here in lines and key.value != "<<":
                raise ConfigError(
                    f"{file}:{line}: {'.'.join(map(str, here))} must be given once, got it again after line "
                    f"{lines[here]}. Remove one."
                )
            lines[here] = line
            _walk(value, here, lines, file, seen)
