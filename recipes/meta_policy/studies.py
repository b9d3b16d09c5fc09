"""Write the studies of the meta-policy family with the settings that their sweeps chose.

    python recipes/meta_policy/studies.py results/meta-policy-sweep

`yardstick.yaml`: one policy of R = 4,096 completions for each of eleven preferences. `main.yaml`: one policy for all of
them, at .05, .1, .2 and .4 of that. `equal.yaml`: every rival at .2. `controls.yaml`: what the gate buys, and its
context. Of rows that were swept with several splits of the budget, the one that scored best on tuning instances.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paretune.core.errors import ParetuneError
from paretune.tasks.strict_yaml import to_yaml

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from chosen_settings import choices  # type: ignore[import-not-found]  # noqa: E402  # one folder up

CORRELATIONS, HETEROGENEITIES = (-0.8, 0.0, 0.8), (0.0, 0.5)
ALL = 11 * 4096  # completions of one policy for each preference
BUDGETS = [2248, 4504, 9008, 18016]  # .05, .1, .2 and .4 of that, in whole groups
SPLITS = {"linear": ("linear", "linear_five", "linear_eleven"), "weight_grid": ("weight_grid", "weight_grid_eleven")}
ONE_FOR_ALL = ("mixture_of_experts", "preference_conditioned")
RANK = 8  # of an expert; a bank of two has twice as much


def best_of(scores: Mapping[str, float], labels: Sequence[str]) -> str:
    """Return the label of highest score.

    Example:
        >>> best_of({"a": 0.5, "b": 0.7, "c": 0.9}, ["a", "b"])
        'b'
    """
    return max(labels, key=lambda label: scores[label])


def study(
    name: str,
    rows: Mapping[str, Mapping[str, Any]],
    budgets: Sequence[int],
    correlations: Sequence[float] = CORRELATIONS,
) -> dict[str, Any]:
    """Return a study of rows on ten instances of tasks with two objectives, in two parts of five instances."""
    tasks = [{"controlled": {"rho": rho, "heterogeneity": h}} for rho in correlations for h in HETEROGENEITIES]
    return {
        "name": f"meta-policy-{name}", "tasks": tasks, "methods": dict(rows), "budget": {"completions": list(budgets)},
        "seeds": 10, "preferences": {"grid": 10, "unseen": 4},
        "parts": {"first": {"seeds": [0, 1, 2, 3, 4]}, "second": {"seeds": [5, 6, 7, 8, 9]}},
    }  # fmt: skip


def studies(rows: Mapping[str, Mapping[str, Any]], scores: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Return all studies by name, of what a sweep chose and what its choices scored."""
    rivals: dict[str, Mapping[str, Any]] = {"rewarded_soups": rows["rewarded_soups"], "mod": rows["mod"]}
    for name, labels in SPLITS.items():
        rivals[name] = rows[best_of(scores, labels)]
    rivals["one_policy"] = rows["one_policy"]
    for name in ("preference_conditioned", "rewarded_soups"):
        rivals[f"{name}_rank_{2 * RANK}"] = {**rows[name], "rank": 2 * RANK, "alpha": 4 * RANK}
    mixture = rows["mixture_of_experts"]
    controls = {
        "gate_none": {**mixture, "gate": "none"},
        **{f"gate_{context}": {**mixture, "context": context} for context in ("blind", "shuffled")},
    }
    one_policy = {"one_policy": {"method": "one_policy"}}  # it stands in every study; tuned in `equal` alone
    return {
        "yardstick": study("yardstick", {"linear": rows["linear"], **one_policy}, [ALL]),
        "main": study("main", {**{name: rows[name] for name in ONE_FOR_ALL}, **one_policy}, BUDGETS),
        "equal": study("equal", rivals, BUDGETS[2:3]),
        "controls": study("controls", {**controls, **one_policy}, BUDGETS[:3], [-0.8]),
    }


def main() -> int:
    """Read the sweep's folder and write the studies; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the finished sweep")
    folder = parser.parse_args().folder
    try:
        found = choices(folder)
    except ParetuneError as error:
        print(f"studies: {error}", file=sys.stderr)
        return 2
    scores = {label: each.score for label, each in found.items()}
    head = "# Written by recipes/meta_policy/studies.py from the sweep: do not edit.\n"
    for name, content in studies({label: each.row for label, each in found.items()}, scores).items():
        (HERE / f"{name}.yaml").write_text(head + to_yaml(content), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
