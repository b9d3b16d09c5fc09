"""Who should answer a preference nobody trained for: the nearest policy, or the one estimated best from its training?

    python recipes/estimated_answers.py            # two correlations, two tuning instances, three minutes on two cores
    python recipes/estimated_answers.py --tiny     # to see it run
    python recipes/estimated_answers.py --kept docs/results/data/single_and_multi/counselling   # of a study, in seconds

`linear` trains few policies, corners and centre first, and answers the eleven preferences of a grid. Every policy is
scored exactly, so that the same policies are judged under each rule, and under the best choice in hindsight.

Of a study's kept parts (`recipes/keep_part.py`) it reads what the policies of `linear` that answer their own preference
scored on test prompts, and prints what the nearest is worth on average and what the others are worth more.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import paretune
from paretune.core.answers import Nearest
from paretune.core.preferences import FloatArray, das_dennis
from paretune.models.solutions import SolutionSet
from paretune.objectives.scoring import Scorer
from paretune.optimum.exact import optimal_outcome, outcome
from paretune.records.per_prompt import read_per_prompt
from paretune.rl.outcomes import enumeration_of, outcomes, tables
from paretune.statistics.intervals import mean_interval
from paretune.tasks import load_task

RHOS, INSTANCES = (-0.8, 0.0), (10_000, 10_001)
POLICIES, EACH, GRID = (3, 6), (1504, 4096), 10
RULES = ("nearest", "estimated", "in hindsight")


def shares(task: paretune.Task, solutions: SolutionSet, preferences: FloatArray) -> tuple[FloatArray, float]:
    """Return what each rule gains in J over the base, summed over preferences that nobody trained for, `[3]`.

    With it the most that could be gained.
    """
    rows = task.splits["test"]
    log_reference, rewards = tables(task, rows, Scorer(task.objectives))
    trained = np.asarray(solutions.answer.trained)  # type: ignore[attr-defined]  # both kinds of answer have it
    members = solutions.policies_for(trained)
    found = outcomes(members, rows, enumeration_of(task), log_reference, rewards, (1.0,))
    scores = (found.rewards[:, 0] - task.beta * found.kl[:, 0, :, None]).mean(axis=1)  # [E, K]
    words = solutions.answer.weights(preferences)[1]
    wanted = preferences[[word != "exact" for word in words]]
    base = outcome(log_reference, log_reference, rewards).scores(task.beta)
    best = optimal_outcome(log_reference, rewards, wanted, task.beta).scores(task.beta)
    worth = wanted @ (scores - base).T  # [M, E]
    chosen = [answer.weights(wanted)[0] for answer in (Nearest(trained), solutions.answer)]
    gained = [*(float((worth * weights).sum()) for weights in chosen), float(worth.max(axis=1).sum())]
    return np.asarray(gained), float(np.einsum("mk,mk->", wanted, best - base))


def kept_worth(folder: Path) -> dict[tuple[str, int], dict[int, FloatArray]]:
    """Return by task and budget of each kept `linear`, by seed, what was not trained for is worth under each rule.

    Means over those preferences, `[3]`: of J where the best policies are known, else of the utility.
    """
    found: dict[tuple[str, int], dict[int, FloatArray]] = {}
    for file in sorted(folder.glob("**/per_prompt.parquet")):
        blocks = read_per_prompt(file)
        listed = {each.task for each in blocks if each.kind == "optimum"}
        for cell in blocks:
            if cell.kind == "cell" and cell.method == "linear" and "estimated" in cell.answers:
                own = np.asarray([word == "exact" for word in cell.answers])
                scores, wanted = cell.J if cell.task in listed else cell.scores, cell.preferences[~own]
                worth = wanted @ scores[own].T  # [M, E]
                nearest = (worth * Nearest(cell.preferences[own]).weights(wanted)[0]).sum(axis=1)
                answered = (wanted * scores[~own]).sum(axis=1)
                rules = np.stack([nearest, answered, worth.max(axis=1)]).mean(axis=1)
                found.setdefault((cell.task, cell.budget_completions), {})[cell.seed] = rules
    return found


def print_kept(folder: Path) -> None:
    """Print what each rule is worth on a study's kept parts."""
    found = kept_worth(folder)
    if not found:
        raise SystemExit(f"folder must hold kept parts with a `linear` that estimates, got '{folder}'. Keep one first.")
    for (task, budget), seeds in found.items():
        table = np.asarray(list(seeds.values()))  # [S, 3]
        said = [f"nearest {table[:, 0].mean():.4f}"]
        for place, rule in enumerate(RULES[1:], 1):
            gap = mean_interval(table[:, place] - table[:, 0])
            reach = "" if gap.low is None else f" [{gap.low:+.4f}, {gap.high:+.4f}]"
            said.append(f"{rule} {gap.mean:+.4f}{reach}")
        print(f"{task}, {budget:,} completions, {len(table)} seeds: {', '.join(said)}")


def main() -> None:
    """Train, score and print, or read what a study kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="one task and instance, few completions")
    parser.add_argument("--kept", type=Path, help="folder of a study's kept parts, read in the place of training")
    arguments = parser.parse_args()
    if arguments.kept:
        print_kept(arguments.kept)
    else:
        print_trained(arguments.tiny)


def print_trained(tiny: bool) -> None:
    """Train on controlled tasks, score and print."""
    print(f"{'rho':>5} {'policies':>8} {'each':>6} " + " ".join(f"{rule:>12}" for rule in RULES))
    for rho in RHOS[:1] if tiny else RHOS:
        family = load_task({"controlled": {"rho": rho}})
        for policies in POLICIES[:1] if tiny else POLICIES:
            for each in (512,) if tiny else EACH:
                gained, possible = np.zeros(3), 0.0
                for seed in INSTANCES[:1] if tiny else INSTANCES:
                    points = das_dennis(len(family.objectives), GRID)
                    solutions = paretune.train(
                        "linear", family, policies * each, seed, points, {"completions_each": each}
                    )
                    mine, most = shares(family.instance(seed), solutions, points)
                    gained, possible = gained + mine, possible + most
                print(
                    f"{rho:5} {policies:8} {each:6} " + " ".join(f"{share:12.3f}" for share in gained / possible),
                    flush=True,
                )


if __name__ == "__main__":
    main()
