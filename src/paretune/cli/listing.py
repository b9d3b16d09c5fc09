"""What `paretune ls` lists, read from the rooms' tables without importing what they name."""

from __future__ import annotations

import importlib

TABLES = {  # kind -> module:table
    "tasks": "paretune.tasks:TASKS",
    "methods": "paretune.methods:METHODS",
    "objectives": "paretune.objectives:OBJECTIVES",
    "metrics": "paretune.metrics:METRICS",
}


def listing(kind: str) -> list[dict[str, str]]:
    """Return name and source of every entry of a kind."""
    if kind == "studies":
        from paretune.benchmark.built_in import built_in_studies

        return [{"name": name, "source": path.name} for name, path in built_in_studies().items()]
    module, _, table = TABLES[kind].partition(":")
    entries: dict[str, str] = getattr(importlib.import_module(module), table)
    return [{"name": name, "source": str(source)} for name, source in entries.items()]
