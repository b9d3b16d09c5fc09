"""Write the studies `main.yaml` (4 R), `small.yaml` (R) and `large.yaml` (11 R) with the settings that the sweep chose.

    python recipes/single_and_multi/chosen.py results/single-and-multi-sweep

A control with shuffled feedback has the settings of the method it is the control of. With R, budgets are split into as
many policies as the sweep chose with 4 R; with 11 R, into one policy of R for each of the eleven preferences.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paretune.core.errors import ParetuneError
from paretune.tasks.strict_yaml import to_yaml

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from chosen_settings import choices  # type: ignore[import-not-found]  # noqa: E402  # one folder up

TASKS = {"competing": (-0.8, 0.0), "independent": (0.0, 0.0), "correlated": (0.8, 0.0), "mixed": (-0.8, 0.5)}
DYNAMIC = ("dynaopt", "contextual_dynaopt", "dorb", "q_weighting")
SEEDS = 5
R = 4096
GROUP = 8  # completions of a prompt, which budgets are made of


def split(row: Mapping[str, Any], budget: int) -> dict[str, Any]:
    """Return a row whose `completions_each` divides another budget into as many policies; of 11 R, into eleven."""
    if "completions_each" not in row:
        return dict(row)
    policies = 11 if budget == 11 * R else 4 * R // int(row["completions_each"])
    return {**row, "completions_each": budget // policies // GROUP * GROUP}


def study(name: str, rows: Mapping[str, Mapping[str, Any]], budget: int) -> dict[str, Any]:
    """Return a study of rows at one budget on all four kinds of task, one part each."""
    tasks = {part: {"controlled": {"rho": rho, "heterogeneity": mixed}} for part, (rho, mixed) in TASKS.items()}
    names = {part: f"controlled-rho{rho:+g}-h{mixed:g}" for part, (rho, mixed) in TASKS.items()}
    return {
        "name": name, "tasks": list(tasks.values()), "methods": dict(rows), "budget": {"completions": budget},
        "seeds": SEEDS, "preferences": {"grid": 10, "unseen": 0},
        "metrics": ["paretune.metrics.own_utility:OwnUtility"],
        "parts": {part: {"tasks": [names[part]]} for part in tasks},
    }  # fmt: skip


def main() -> int:
    """Read the sweep's folder and write both studies; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the finished sweep")
    parser.add_argument(
        "--rows", nargs="+", default=[
            "linear", "chebyshev_smooth", "dynaopt", "mgda_normalised", "weight_grid", "linear_support", "evolution",
        ], help="rows of the other budgets, beside base and one_policy",
    )  # fmt: skip
    arguments = parser.parse_args()
    try:
        rows = {label: each.row for label, each in choices(arguments.folder).items()}
    except ParetuneError as error:
        print(f"chosen: {error}", file=sys.stderr)
        return 2
    controls = {f"{name}_shuffled": {**rows[name], "feedback": "shuffled"} for name in DYNAMIC}
    some = {label: rows[label] for label in [*arguments.rows, "one_policy"]}
    files = {
        "main": study("single-and-multi", {**rows, **controls}, 4 * R),
        "small": study("single-and-multi-small", {name: split(row, R) for name, row in some.items()}, R),
        "large": study("single-and-multi-large", {name: split(row, 11 * R) for name, row in some.items()}, 11 * R),
    }
    for name, content in files.items():
        head = "# Written by recipes/single_and_multi/chosen.py from the sweep: do not edit.\n"
        (HERE / f"{name}.yaml").write_text(head + to_yaml(content), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
