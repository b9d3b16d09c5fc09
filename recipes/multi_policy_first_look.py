"""A first look at the multi-policy methods on one tuning instance of the controlled task; no comparison.

    python recipes/multi_policy_first_look.py                       # six settings, 16,384 completions each
    python recipes/multi_policy_first_look.py --completions 4096 --each 1024
    python recipes/multi_policy_first_look.py --tiny                # to see it run

Tuning instances are seeds from 10,000; reported ones lie below and are never looked at here.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from paretune.benchmark.runner import run
from paretune.benchmark.study import load_study
from paretune.metrics import measure_all

METHODS: dict[str, dict[str, Any]] = {
    "weight_grid": {},
    "linear_support": {},
    "linear_support-nearest": {"method": "linear_support", "reuse": "nearest"},
    "linear_support-pairs": {"method": "linear_support", "round_size": 2},
    "prediction_guided": {},
    "evolution": {},
}
SPLIT = [name for name in METHODS if name.startswith(("weight_grid", "linear_support"))]  # into so many for each member
INSTANCE = 10_000
COMPLETIONS = 16_384


def main() -> int:
    """Train, measure and print captured shares; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("results/multi_policy_first_look"))
    parser.add_argument("--only", nargs="*", default=list(METHODS), help="settings to run")
    parser.add_argument("--tiny", action="store_true", help="few completions")
    parser.add_argument("--completions", type=int, default=COMPLETIONS, help="of each setting")
    parser.add_argument(
        "--each", type=int, default=1500, help="completions of a member, where a method has that setting"
    )
    arguments = parser.parse_args()
    study: dict[str, Any] = {
        "name": "multi-policy-first-look",
        "tasks": [{"controlled": {"rho": -0.8, "heterogeneity": 0}}],
        "methods": {
            name: {**METHODS[name], **({"completions_each": arguments.each} if name in SPLIT else {})}
            for name in arguments.only
        },
        "budget": {"completions": 640 if arguments.tiny else arguments.completions},
        "preferences": {"grid": 4 if arguments.tiny else 10, "unseen": 0},
        "workers": 1,
    }
    result = run(dataclasses.replace(load_study(study), seeds=(INSTANCE,)), arguments.output)
    for row in measure_all(result.records, ["captured_share"]):
        if row.label == "":
            share = row.value.value
            print(f"{row.method}: captured share {'missing' if share is None else f'{share:.3f}'}")
    for cell in result.records.cells:
        print(f"{cell.method}: {sum(stage.counts['completions'] for stage in cell.stages):.0f} completions")
    return 0 if result.complete else 1


if __name__ == "__main__":
    sys.exit(main())
