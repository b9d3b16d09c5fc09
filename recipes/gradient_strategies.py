"""Compare the gradient strategies with plain weights on one controlled task: a first look, which claims nothing.

python recipes/gradient_strategies.py             # linear and four strategies, one tuning instance
python recipes/gradient_strategies.py --tiny      # to see it run
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
from paretune.report.comparison import comparisons
from paretune.report.conflicts import conflicts

METHODS = ("linear", "mgda", "pcgrad", "cagrad", "upgrad")
INSTANCES = (10_000,)  # a tuning instance: reported ones are never looked at here
COMPLETIONS = 4 * 1536
TASK = {"controlled": {"rho": -0.8, "heterogeneity": 0.0}}


def main() -> int:
    """Train them all and print captured shares, and which share of steps turned against an objective."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("results/gradient_strategies"))
    parser.add_argument("--tiny", action="store_true", help="two methods, few completions")
    arguments = parser.parse_args()
    study: dict[str, Any] = {
        "name": "gradient-strategies",
        "tasks": [TASK],
        "methods": {name: {} for name in METHODS[: 2 if arguments.tiny else None]},
        "budget": {"completions": 128 if arguments.tiny else COMPLETIONS},
        "preferences": {"grid": 4, "unseen": 0},
    }
    result = run(dataclasses.replace(load_study(study), seeds=INSTANCES), arguments.output)
    for row in measure_all(result.records, ["captured_share"]):
        if row.label == "":
            print(f"{row.method}: captured share {'missing' if row.value.value is None else f'{row.value.value:.3f}'}")
    for part in comparisons(result.records):
        print(conflicts(part))
    return 0 if result.complete else 1


if __name__ == "__main__":
    sys.exit(main())
