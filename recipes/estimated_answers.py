"""Who should answer a preference nobody trained for: the nearest policy, or the one estimated best from its training?

    python recipes/estimated_answers.py            # two correlations, two tuning instances, three minutes on two cores
    python recipes/estimated_answers.py --tiny     # to see it run

`linear` trains few policies, corners and centre first, and answers the eleven preferences of a grid. Every policy is
scored exactly, so that the same policies are judged under each rule, and under the best choice in hindsight.
"""

from __future__ import annotations

import argparse

import numpy as np

import paretune
from paretune.core.answers import Nearest
from paretune.core.preferences import FloatArray, das_dennis
from paretune.models.solutions import SolutionSet
from paretune.objectives.scoring import Scorer
from paretune.optimum.exact import optimal_outcome, outcome
from paretune.rl.outcomes import enumeration_of, outcomes, tables
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


def main() -> None:
    """Train, score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="one task and instance, few completions")
    tiny = parser.parse_args().tiny
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
