"""A new objective arrives: what it costs to serve it too, and what that loses for those who do not want it.

    python recipes/meta_policy/new_objective.py -o docs/results/data/meta_policy/new_objective.csv
    python recipes/meta_policy/new_objective.py -o /tmp/new.csv --tiny     # to see it run

Tasks with three objectives, of which two are known at first. `modular`: rewarded soups, to which one expert for the new
objective is added; the others stay as they are. `joint`: a mixture of experts, trained again for all three. `joint, no
gate`: a jointly trained bank, trained again; and `joint, one more expert`: the same bank; its experts are kept and get
one more that is trained alone. Captured shares are exact, on test prompts: of weights that want only the two objectives
that there were, before and after, and of all fifteen weights after.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from kinds import Exact  # type: ignore[import-not-found]  # beside this file

import paretune
from paretune.core.errors import ParetuneError
from paretune.core.preferences import FloatArray, das_dennis
from paretune.core.task import Task
from paretune.models.loading import unwrap
from paretune.models.solutions import SolutionSet
from paretune.tasks import load_task

sys.path.insert(0, str(Path(__file__).parents[1]))
from chosen_settings import load_choices  # type: ignore[import-not-found]  # one folder up
from csv_lines import continued  # type: ignore[import-not-found]
from studies import DATA, Studies, at_both_rates  # type: ignore[import-not-found]  # beside this file

TASK = {"rho": -0.4, "heterogeneity": 0.5, "objectives": 3}
INSTANCES, DIVISIONS = (0, 1, 2), 4
EACH = 4096  # completions for each objective, old and new
TINY = {"alphabet": 4, "length": 2}


@dataclass(frozen=True)
class Way:
    """One way to live with a new objective."""

    name: str
    row: str  # of the studies, with the settings that the sweep chose
    how: str
    completions: int  # once the objective is there


WAYS = (
    Way("modular", "rewarded_soups", "modular", EACH),
    Way("modular, half the learning rate", "rewarded_soups_slower", "modular", EACH),
    Way("modular, trained again", "rewarded_soups", "retrain", 3 * EACH),
    Way("joint, one more expert", "preference_conditioned", "modular", EACH),
    Way("joint, no gate, trained again", "preference_conditioned", "retrain", 3 * EACH),
    Way("joint, trained again", "mixture_of_experts", "retrain", 3 * EACH),
    Way("joint, trained again for less", "mixture_of_experts", "retrain", EACH),
)


def of_two(task: Task) -> Task:
    """Return a task instance without its last objective."""
    values: dict[str, Any] = {each.name: getattr(task, each.name) for each in fields(Task)}
    values["objectives"] = task.objectives[:-1]
    if task.reference_point is not None:
        values["reference_point"] = task.reference_point[:-1]
    return Task(**values)


def share(solutions: SolutionSet, exact: Exact, wanted: FloatArray) -> float:
    """Return the captured share of a solution set over weights `[M, K]`."""
    try:
        return float(exact.share(exact.scores(solutions.policies_for(wanted))))
    finally:
        unwrap(solutions.base)


def lived(way: Way, task: Task, instance: int, tiny: bool) -> dict[str, object]:
    """Train for two objectives, let the third arrive, and return what each state captures."""
    two, each = of_two(task), 64 if tiny else EACH
    settings = dict(at_both_rates(Studies(load_choices(DATA / "chosen.json")).rows)[way.row])
    method = settings.pop("method")
    settings = {"epochs": 2} if tiny else settings
    pairs, all_three = das_dennis(2, DIVISIONS), das_dennis(3, DIVISIONS)
    old = np.concatenate([pairs, np.zeros((len(pairs), 1))], axis=1)  # the same weights, none for the new objective
    before = paretune.train(method, two, 2 * each, instance, pairs, settings)
    spent = way.completions * each // EACH
    after: Any = paretune.add_objective(
        before, task, spent, instance, settings=settings, preferences=all_three,
        how=way.how,  # type: ignore[arg-type]
    )  # fmt: skip
    first = share(before, Exact(two, pairs), pairs)
    shares = [share(after, Exact(task, rows), rows) for rows in (old, all_three)]
    return {
        "completions_before": 2 * each,
        "completions_after": after.notes["added"]["completions"], "seconds_after": after.notes["added"]["seconds"],
        "experts": len(after.experts), "old_before": first, "old_after": shares[0], "all_after": shares[1],
    }  # fmt: skip


def main() -> int:
    """Train what is not there yet, write a line for each way and instance; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="CSV file; lines in it are not made again")
    parser.add_argument("--tiny", action="store_true", help="one instance of a tiny task")
    arguments = parser.parse_args()
    family = load_task({"controlled": {**TASK, **(TINY if arguments.tiny else {})}})
    ways = {way.name: way for way in WAYS}
    instances = INSTANCES[:1] if arguments.tiny else INSTANCES

    def make(key: Mapping[str, Any]) -> dict[str, object]:
        return lived(ways[key["way"]], family.instance(key["instance"]), key["instance"], arguments.tiny)

    keys = [{"way": name, "instance": instance} for instance in instances for name in ways]
    try:
        continued(arguments.output, keys, make, arguments.tiny)
    except ParetuneError as error:
        print(f"new_objective: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
