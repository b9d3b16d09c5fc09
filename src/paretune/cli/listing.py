"""What `paretune ls` lists, read from the rooms' tables and their modules' text without importing what they name."""

from __future__ import annotations

import ast
import importlib
from importlib.util import find_spec
from pathlib import Path

TABLES = {  # kind -> module:table
    "tasks": "paretune.tasks:TASKS",
    "methods": "paretune.methods:METHODS",
    "objectives": "paretune.objectives:OBJECTIVES",
    "metrics": "paretune.metrics:METRICS",
}


def listing(kind: str) -> list[dict[str, str]]:
    """Return name, source and description of every entry of a kind, and the family of methods."""
    if kind == "studies":
        from paretune.benchmark.built_in import built_in_studies

        return [
            {"name": name, "source": path.name, "description": _first_comment(path)}
            for name, path in built_in_studies().items()
        ]
    module, _, table = TABLES[kind].partition(":")
    entries: dict[str, str] = getattr(importlib.import_module(module), table)
    return [{"name": name, "source": str(source), **_described(str(source), kind)} for name, source in entries.items()]


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
