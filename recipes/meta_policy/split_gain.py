"""What is there for a prompt-level gate over experts of half of the prompts each: best g per prompt over best g(w).

    python recipes/meta_policy/split_gain.py -o docs/results/data/meta_policy/split_gain.csv
    python recipes/meta_policy/split_gain.py -o /tmp/split_gain.csv --tiny    # to see it run

Correlations -.8 and 0, heterogeneity 0, .5 and 1; about five minutes of one core for each instance of all six.

Two experts for each objective are trained on the exact J, one on the training prompts below and one on those above 0 of
the task's feature (`split_experts`). Their deltas are averaged, and the expert weights g that are best are searched on
the exact J of test prompts by steps of Adam through the model: one g for a preference, and one for each prompt. The
setting is accepted where the second gains at least .05 of the possible over the first, at heterogeneity .5 or more.
Both are what was found with the same number of steps, a lower bound: half of them are one g's, and go on from there
either with one g or with one for each prompt. Beside them is what `w @ prior` gives, which knows no prompt, and the
rule by half, which fits nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import paretune
from paretune.core.errors import ParetuneError
from paretune.core.preferences import FloatArray, corners, das_dennis
from paretune.core.task import Task
from paretune.methods.meta_policy.lower_level.split_experts import SplitExperts
from paretune.methods.prompt_halves import above
from paretune.models.adapters import load_bank, save_adapter
from paretune.models.bank import ExpertBank
from paretune.models.loading import load_base
from paretune.models.mixing import Mixing
from paretune.models.tree import tree_log_probs
from paretune.objectives.scoring import Scorer
from paretune.optimum.exact import optimal_outcome
from paretune.rl.outcomes import enumeration_of, tables
from paretune.tasks import load_task

sys.path.insert(0, str(Path(__file__).parents[1]))
from csv_lines import continued  # type: ignore[import-not-found]  # one folder up

TASKS = [{"rho": rho, "heterogeneity": h} for h in (0.5, 1.0, 0.0) for rho in (-0.8, 0.0)]
INSTANCES, GRID = (10000, 10001, 10002), 4  # tuning instances, as the range of `context` is accepted on
TINY = {"alphabet": 5, "length": 3}
FOUND = ("prior", "by_half", "best_for_all", "best_each")  # expert weights, in the order of `gained`
UPDATES, STEPS, RATE = 100, 40, 0.1  # of training; of either half of a search, in units of expert weights


def of_half(task: Task, upper: bool) -> Task:
    """Return an instance with the training prompts of one half alone, and no family to be drawn from again."""
    rows = task.splits["train"]
    mine = tuple(row for row, over in zip(rows, above(task, rows), strict=True) if over == upper)
    values: dict[str, Any] = {each.name: getattr(task, each.name) for each in fields(Task)}
    return replace(Task(**values), splits={**task.splits, "train": mine})


def exact_experts(task: Task, seed: int, updates: int) -> ExpertBank:
    """Train two experts for each objective on the exact J; return them in the order of `SplitExperts`."""
    objectives = len(task.objectives)
    with tempfile.TemporaryDirectory() as folder:
        for half in range(2):
            found = paretune.train(
                "exact_gradient", of_half(task, bool(half)), 1, seed, corners(objectives), {"updates": updates}
            )
            bank: Any = found.bank
            for expert in range(objectives):
                save_adapter(bank, expert, Path(folder) / f"{2 * expert + half}")
            bank.unwrap()
        return load_bank(load_base(task.model), [Path(folder) / f"{expert}" for expert in range(2 * objectives)])


class Mixture:
    """J of averages of a bank's experts on the test prompts, exact and differentiable in the expert weights."""

    def __init__(self, bank: ExpertBank, task: Task) -> None:
        self.bank, self.task, rows = bank, task, task.splits["test"]
        log_reference, self.rewards = tables(task, rows, Scorer(task.objectives))
        self.log_reference = log_reference
        self.prompts = [bank.base.encode(str(row["prompt"]), task.prompt_format) for row in rows]
        self.upper = above(task, rows)
        device = bank.base.device
        self.reference = torch.from_numpy(log_reference).float().to(device)

    def value(self, expert_weights: Tensor, preference: FloatArray) -> Tensor:
        """Return J of each prompt `[P]` under expert weights `[P, E]`."""
        listed = enumeration_of(self.task)
        table = tree_log_probs(
            self.bank.base, self.bank, Mixing.of_rows(expert_weights), self.prompts, listed.token_ids, listed.length
        )
        utilities = torch.from_numpy(self.rewards @ preference).float().to(table.device)
        return (table.exp() * (utilities - self.task.beta * (table - self.reference))).sum(dim=1)

    def best(self, start: FloatArray, preference: FloatArray, shared: bool, steps: int) -> tuple[FloatArray, float]:
        """Search expert weights `[1 or P, E]` from a start; return the best found, and its mean J."""
        own = torch.from_numpy(start).float().to(self.reference.device).requires_grad_()
        optimiser = torch.optim.Adam([own], lr=RATE)
        best, found = np.full(1 if shared else len(self.prompts), -np.inf), start.copy()
        for step in range(steps + 1):
            for group in optimiser.param_groups:
                group["lr"] = RATE * (1 - step / (steps + 1))
            values = self.value(own.expand(len(self.prompts), -1), preference)
            reached = values.detach().double().cpu().numpy()
            reached = reached.mean(keepdims=True) if shared else reached
            better = reached > best
            best, found = np.where(better, reached, best), np.where(better[:, None], own.detach().cpu().numpy(), found)
            optimiser.zero_grad()
            (-values.sum()).backward()
            self.bank.take_gradients()  # of the experts, which stay
            optimiser.step()
        return found, float(best.mean())

    def at(self, expert_weights: FloatArray, preference: FloatArray) -> float:
        """Return mean J under expert weights `[1 or P, E]`."""
        rows = torch.from_numpy(np.broadcast_to(expert_weights, (len(self.prompts), expert_weights.shape[1])).copy())
        with torch.no_grad():
            return float(self.value(rows.float().to(self.reference.device), preference).mean())


def gained(task: Task, seed: int, wanted: FloatArray, updates: int, steps: int) -> tuple[FloatArray, float]:
    """Return the sums over preferences of what prior, rule by half, best g(w) and best g per prompt gain in J.

    With it the most that could be gained.
    """
    mixture = Mixture(exact_experts(task, seed, updates), task)
    kind, objectives = SplitExperts(), len(task.objectives)
    low, high = kind.prior_by_half(objectives)
    best = optimal_outcome(mixture.log_reference, mixture.rewards, wanted, task.beta).scores(task.beta)
    sums, possible = np.zeros(4), 0.0
    for preference, most in zip(wanted, best, strict=True):
        base = mixture.at(np.zeros((1, 2 * objectives)), preference)
        plain = (preference @ kind.prior(objectives))[None]
        by_half = np.where(mixture.upper[:, None], preference @ high, preference @ low)
        shared, _ = mixture.best(plain, preference, True, steps)
        one = mixture.best(shared, preference, True, steps)[1]
        each = mixture.best(np.tile(shared, (len(mixture.prompts), 1)), preference, False, steps)[1]
        sums += np.asarray([mixture.at(plain, preference), mixture.at(by_half, preference), one, each]) - base
        possible += float(preference @ most) - base
    mixture.bank.unwrap()
    return sums, possible


def main() -> int:
    """Train, search and write; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="CSV file; lines in it are not made again")
    parser.add_argument("--tiny", action="store_true", help="a smaller task, few updates and preferences")
    arguments = parser.parse_args()
    tiny: bool = arguments.tiny
    tasks, instances = (TASKS[:1], INSTANCES[:1]) if tiny else (TASKS, INSTANCES)

    def make(key: Mapping[str, Any]) -> dict[str, object]:
        task = {"rho": key["rho"], "heterogeneity": key["heterogeneity"], **(TINY if tiny else {})}
        instance = load_task({"controlled": task}).instance(key["instance"])
        wanted = das_dennis(len(instance.objectives), 2 if tiny else GRID)
        sums, possible = gained(instance, key["instance"], wanted, *((20, 5) if tiny else (UPDATES, STEPS)))
        shares = [float(each) for each in sums / possible]
        return {**dict(zip(FOUND, shares, strict=True)), "gain": shares[3] - shares[2]}

    try:
        continued(
            arguments.output, [{**task, "instance": instance} for instance in instances for task in tasks], make, tiny
        )
    except ParetuneError as error:
        print(f"split_gain: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
