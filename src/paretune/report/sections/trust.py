"""Whether all this can be trusted: what was run and what is missing, equal configurations, failed rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from paretune.metrics.configuration import Finding
from paretune.report.comparison import Comparison
from paretune.report.completeness import failure
from paretune.report.header import commands, failures, lost_rewards
from paretune.report.section import Section
from paretune.report.tables import Table
from paretune.report.view import View


def data(view: View) -> Mapping[str, object]:
    """List the state of every cell, what failed, what differs between cells that are compared."""
    study = view.study
    return {
        "parts": [
            {
                "title": part.title,
                "seeds": part.seeds,
                "matrix": [_matrix_row(part, each.name) for each in part.methods],
            }
            for part in view.comparisons
        ],
        "configuration": configuration_table(view.configuration),
        "differs": [each.sentence for each in view.configuration if each.state == "differs"],
        "failures": failures(study),
        "lost": lost_rewards(study),
        "commands": commands(study),
        "environment": [(name, str(value)) for name, value in study.environment.items()],
    }


def configuration_table(found: Sequence[Finding]) -> Table | None:
    """Return whether the compared cells were run alike, item by item; None where nothing is compared."""
    lines = [
        (f"{each.task}, {each.budget_completions:,} completions", each.item, each.state, each.sentence)
        for each in found
    ]
    title = "Were the compared cells run alike?"
    return Table("configuration", title, ("compared", "item", "state", "remarks"), tuple(lines)) if lines else None


def _matrix_row(part: Comparison, name: str) -> dict[str, object]:
    method = part.method(name)
    cells = []
    for seed in part.seeds:
        cell = method.cells.get(seed)
        if cell is None:
            cells.append({"state": "pending", "text": "not planned"})
        elif cell.state == "failed":
            cells.append({"state": "failed", "text": f"✕ failed: {failure(cell)}"})
        else:
            cells.append({"state": cell.state, "text": "✓ done" if cell.state == "done" else "… not run"})
    return {"method": name, "family": method.family, "cells": cells}


SECTION = Section(
    "trust",
    "Can it be trusted: what was run, and is it complete?",
    "Trust",
    data,
    template="trust.html.jinja",
    of="study",
)
