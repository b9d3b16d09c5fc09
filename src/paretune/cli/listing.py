"""What `paretune ls` lists, read from the rooms' tables and their modules' text without importing what they name."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from paretune.core.checks import check_choice

TABLES = {  # kind -> module:table
    "tasks": "paretune.tasks:TASKS",
    "methods": "paretune.methods:METHODS",
    "objectives": "paretune.objectives:OBJECTIVES",
    "metrics": "paretune.metrics:METRICS",
}


KINDS = (*TABLES, "studies")
NOUNS = {"studies": "study"}
WIDEST = 20  # characters of a default that others are lined up with
Entry = dict[str, Any]


def listing(kind: str, name: str | None = None) -> list[Entry]:
    """Return name, source and description of every entry of a kind, and the family of methods.

    Args:
        kind: One of `KINDS`.
        name: Of one entry; a method may be `module:Class`. A method has its own `settings` then, and the names of those
            it shares with others, `shared`.

    Raises:
        UnknownNameError: If there is no such entry.
        ConfigError: If `module:Class` is no method.
    """
    if kind == "studies":
        from paretune.benchmark.built_in import built_in_studies

        entries: Mapping[str, object] = built_in_studies()
    else:
        module, _, table = TABLES[kind].partition(":")
        entries = getattr(importlib.import_module(module), table)
    if name is not None:
        own = kind == "methods" and ":" in name
        noun = NOUNS.get(kind, kind[:-1])
        entries = {name: name if own else entries[check_choice(noun, name, entries, f"paretune ls {kind}")]}
    return [_entry(kind, each, source, name is not None) for each, source in entries.items()]


def _entry(kind: str, name: str, source: object, whole: bool) -> Entry:
    if isinstance(source, Path):
        return {"name": name, "source": source.name, "description": _first_comment(source)}
    if not (whole and kind == "methods"):
        return {"name": name, "source": str(source), **_described(str(source), kind)}
    from paretune.cli.settings_text import own_settings, shared_settings
    from paretune.methods import resolve_method

    settings = resolve_method(name).Settings  # first, so that what is no method is refused
    described = _described(str(source), kind)
    return {
        "name": name, "source": str(source), **described, "settings": own_settings(settings),
        "shared": shared_settings(settings),
    }  # fmt: skip


def text_of(found: Mapping[str, Sequence[Entry]]) -> str:
    """Return a listing for people, by kind: a line for each entry, and below one that has them its settings."""
    lines = []
    for kind, entries in found.items():
        lines += [f"{kind}:"] if len(found) > 1 else []
        for entry in entries:
            family = f"{entry['family']:<15}" if "family" in entry else ""
            lines.append(f"{'  ' if len(found) > 1 else ''}{entry['name']:<23} {family}{entry['description']}")
            lines += _settings_lines(entry)
    return "\n".join(lines)


def _settings_lines(entry: Entry) -> list[str]:
    own = entry.get("settings", ())
    wide = max((len(each["default"]) for each in own if len(each["default"]) <= WIDEST), default=0)
    lines = [f"  {each['name']:<22}{each['default']:<{wide}}  {each['comment']}".rstrip() for each in own]
    if entry.get("shared"):
        lines.append(f"  and as other methods, docs/learning.md: {', '.join(entry['shared'])}")
    return lines


def _described(source: str, kind: str) -> dict[str, str]:
    """Read the first sentence about `module:name` from its docstring; about a task, from its module's."""
    module, _, name = source.partition(":")
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return {"description": ""}
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    named = (node for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name)
    node = next(named, None)
    about = tree if kind == "tasks" or node is None else node
    paragraph = (ast.get_docstring(about) or "").split("\n\n", maxsplit=1)[0]
    described = {"description": " ".join(paragraph.split())}
    return {"family": _family(node), **described} if kind == "methods" else described


def _family(node: ast.stmt | None) -> str:
    """Return the family in `@method(name, family)` above a class."""
    for each in node.decorator_list if isinstance(node, ast.ClassDef) else ():
        if isinstance(each, ast.Call) and ast.unparse(each.func) == "method":
            return str(ast.literal_eval(each.args[1]))
    return ""


def _first_comment(path: Path) -> str:
    with path.open(encoding="utf-8") as lines:
        return next((line.lstrip("# ").strip() for line in lines if line.startswith("#")), "")
