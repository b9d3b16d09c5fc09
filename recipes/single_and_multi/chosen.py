"""Write the studies `main.yaml` and `budgets.yaml` with the settings that the sweep chose.

    python recipes/single_and_multi/chosen.py results/single-and-multi-sweep

A control with shuffled feedback has the settings of the method it is the control of.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paretune.benchmark.study import load_study
from paretune.core.errors import ParetuneError, RecordError
from paretune.records.reading import read_study
from paretune.tasks.strict_yaml import to_yaml

HERE = Path(__file__).parent
TASKS = {"competing": (-0.8, 0.0), "independent": (0.0, 0.0), "correlated": (0.8, 0.0), "mixed": (-0.8, 0.5)}
DYNAMIC = ("dynaopt", "contextual_dynaopt", "dorb", "q_weighting")
SEEDS = 5
R = 4096


def settings(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what each row of the sweep is, with what was chosen for it.

    Raises:
        RecordError: If the sweep of a row is not finished.
    """
    study = read_study(folder)
    rows: dict[str, dict[str, Any]] = {}
    chosen = {each.method: each for each in study.tuning}
    written: Any = study.resolved["methods"]
    given: Mapping[str, Any] = {label: dict(row) for label, row in written.items()}
    named = load_study(folder / "study.yaml")
    for entry in named.methods:
        if entry.method.family == "reference":
            continue
        found = chosen.get(entry.label)
        if found is None or found.chosen is None:
            raise RecordError(
                f"the sweep of {entry.label} must be finished, got no choice. Run the same command again."
            )
        default = json.loads(json.dumps(vars(entry.method.Settings())))  # as a file has it: no tuples
        own = {name: value for name, value in given[entry.label].items() if default.get(name, value) != value}
        rows[entry.label] = {"method": entry.source, **own, **found.points[found.chosen].settings}
    return rows


def study(name: str, rows: Mapping[str, Mapping[str, Any]], budgets: list[int]) -> dict[str, Any]:
    """Return a study of rows at some budgets on all four kinds of task, one part each."""
    tasks = {part: {"controlled": {"rho": rho, "heterogeneity": mixed}} for part, (rho, mixed) in TASKS.items()}
    names = {part: f"controlled-rho{rho:+g}-h{mixed:g}" for part, (rho, mixed) in TASKS.items()}
    return {
        "name": name, "tasks": list(tasks.values()), "methods": dict(rows), "budget": {"completions": budgets},
        "seeds": SEEDS, "preferences": {"grid": 10, "unseen": 0},
        "metrics": ["paretune.metrics.own_utility:OwnUtility"],
        "parts": {part: {"tasks": [names[part]]} for part in tasks},
    }  # fmt: skip


def main() -> int:
    """Read the sweep's folder and write both studies; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the finished sweep")
    parser.add_argument(
        "--budgets", nargs="+", default=[
            "linear", "chebyshev_smooth", "dynaopt", "mgda_normalised", "weight_grid", "linear_support", "evolution",
        ], help="rows of budgets.yaml, beside base and one_policy",
    )  # fmt: skip
    arguments = parser.parse_args()
    try:
        rows = settings(arguments.folder)
    except ParetuneError as error:
        print(f"chosen: {error}", file=sys.stderr)
        return 2
    controls = {f"{name}_shuffled": {**rows[name], "feedback": "shuffled"} for name in DYNAMIC}
    files = {
        "main": study("single-and-multi", {**rows, **controls}, [4 * R]),
        "budgets": study(
            "single-and-multi-budgets",
            {label: rows[label] for label in [*arguments.budgets, "one_policy"]},
            [R, 11 * R],
        ),
    }
    for name, content in files.items():
        head = "# Written by recipes/single_and_multi/chosen.py from the sweep: do not edit.\n"
        (HERE / f"{name}.yaml").write_text(head + to_yaml(content), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
