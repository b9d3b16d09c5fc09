"""Choose the learning rate of every method on controlled tasks, by one sweep for all, on tuning instances only.

    python recipes/controlled_learning_rate.py             # four rates, three methods, three tasks, three instances
    python recipes/controlled_learning_rate.py --tiny      # to see it run

With one epoch a batch and no average, the default when this sweep was made; recipes/learner/sweep.yaml goes on from it.
Tuning instances are seeds from 10,000; reported ones lie below and are never looked at here.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np

from paretune.benchmark.runner import run
from paretune.benchmark.study import load_study
from paretune.metrics import measure_all

RATES = (2.5e-3, 5e-3, 1e-2, 2e-2)
METHODS = ("linear", "weight_grid", "rewarded_soups")
RHOS = (-0.8, 0.0, 0.8)
INSTANCES = (10_000, 10_001, 10_002)
COMPLETIONS = 6000


def main() -> int:
    """Run the sweep and print captured shares; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("results/controlled_learning_rate"))
    parser.add_argument("--tiny", action="store_true", help="two rates, one method, one instance, few completions")
    arguments = parser.parse_args()
    rates, methods = (RATES[:2], METHODS[:1]) if arguments.tiny else (RATES, METHODS)
    study: dict[str, Any] = {
        "name": "controlled-learning-rate",
        "tasks": [{"controlled": {"rho": rho}} for rho in (RHOS[:1] if arguments.tiny else RHOS)],
        "methods": {
            f"{method}-{rate:g}": {"method": method, "learning_rate": rate, "epochs": 1, "average_decay": 0.0}
            for method in methods
            for rate in rates
        },
        "budget": {"completions": 128 if arguments.tiny else COMPLETIONS},
        "preferences": {"grid": 4, "unseen": 0},
    }
    tuning = dataclasses.replace(load_study(study), seeds=INSTANCES[:1] if arguments.tiny else INSTANCES)
    result = run(tuning, arguments.output)
    rows = [row for row in measure_all(result.records, ["captured_share"]) if row.label == ""]
    for method in methods:
        print(method)
        for rate in rates:
            shares = [row.value.value for row in rows if row.method == f"{method}-{rate:g}"]
            measured = [share for share in shares if share is not None]
            each = ", ".join("missing" if share is None else f"{share:.3f}" for share in shares)
            mean = f"{np.mean(measured):.3f}" if len(measured) == len(shares) else "missing"
            print(f"  {rate:g}: captured share {mean} ({each} by task)")
    return 0 if result.complete else 1


if __name__ == "__main__":
    sys.exit(main())
