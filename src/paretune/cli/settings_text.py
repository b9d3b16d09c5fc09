"""What settings say of themselves: name, default, and the comment beside each field in the source."""

from __future__ import annotations

import ast
import inspect
import io
import json
import textwrap
import tokenize
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from paretune.methods.experts import ExpertSettings
from paretune.rl.settings import LearnerSettings

SHARED = (ExpertSettings, LearnerSettings)  # settings that all methods have which learn by sampling


def own_settings(kind: type) -> list[dict[str, str]]:
    """Return name, default and comment of the settings of a method that not all methods share, in their order.

    Args:
        kind: Dataclass of the settings.
    """
    hints, notes = get_type_hints(kind), {cls: comments(cls) for cls in kind.__mro__ if cls is not object}
    found = []
    for each in fields(kind):
        owner = _owner(kind, each.name)
        if each.init and owner not in SHARED:
            said = notes.get(owner, {}).get(each.name, "") or _choices(hints[each.name], each.default)
            default = each.default_factory() if each.default_factory is not MISSING else each.default
            found.append({"name": each.name, "default": _written(default), "comment": said})
    return found


def shared_settings(kind: type) -> list[str]:
    """Return the names of those that it shares with other methods."""
    return [each.name for each in fields(kind) if _owner(kind, each.name) in SHARED]


def comments(cls: type) -> dict[str, str]:
    """Return the comment of each field that a class declares: at its end, or on the lines right above it.

    Nothing for a class whose source is not there.
    """
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):
        return {}
    said, alone = _comment_lines(source)
    (node,) = ast.parse(source).body
    found: dict[str, str] = {}
    for each in node.body if isinstance(node, ast.ClassDef) else ():
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            above, line = list[str](), each.lineno - 1
            while line in alone:
                above.insert(0, said[line])
                line -= 1
            end = said.get(each.end_lineno or each.lineno, "")
            found[each.target.id] = " ".join(part for part in (*above, end) if part)
    return found


def _comment_lines(source: str) -> tuple[Mapping[int, str], set[int]]:
    """Return the comments of a source by line, and which lines have nothing else."""
    said, alone = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            line = token.start[0]
            said[line] = token.string.lstrip("# ").strip()
            if not token.line[: token.start[1]].strip():
                alone.add(line)
    return said, alone


def _owner(kind: type, name: str) -> type:
    """Return the class that declares a field as it counts, the nearest one."""
    return next(cls for cls in kind.__mro__ if name in inspect.get_annotations(cls))


def _choices(hint: Any, default: object) -> str:
    """Return the other words that a field without a comment may be, where its type lists them."""
    others = [str(each) for each in get_args(hint) if each != default] if get_origin(hint) is Literal else []
    return f"or {', '.join(others)}" if others else ""


def _written(value: object) -> str:
    """Return a default as a study has it; nothing where there is none."""
    if value is MISSING:
        return ""
    plain = isinstance(value, str) and value.strip() == value != ""
    return str(value) if plain else json.dumps(value, default=str)
