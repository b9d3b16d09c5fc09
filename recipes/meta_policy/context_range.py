"""Which values of `context` leave a rule that reads the prompt something to find? Measured with exact experts.

    python recipes/meta_policy/context_range.py            # 5 minutes of one core
    python recipes/meta_policy/context_range.py --tiny     # to see it run

An exact expert is the best policy for one objective alone. Experts of equal beta, mixed at the level of the sequence
with weights g, are `pi ~ prod pi_i^g_i`. The best g of each prompt is then what its user wants, w(x), and reaches J*;
the best g(w) is one g for all prompts, free to leave the simplex, fitted on J of these very prompts: what it lacks, no
rule that is blind to the prompt can have. The gain of reading the prompt is the ratio of sums over preferences
`(J* - J_g(w)) / (J* - J_base)`.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from paretune.core.preferences import das_dennis
from paretune.objectives.scoring import Scorer
from paretune.optimum.exact import Outcome, optimal_outcome, outcome, prompt_gains
from paretune.rl.outcomes import tables
from paretune.tasks.controlled import load

FloatArray = NDArray[np.float64]
RHOS, HETEROGENEITIES = (-0.8, 0.0, 0.8), (0.0, 0.5)
CONTEXTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
INSTANCES = (10000, 10001, 10002)
PREFERENCES = das_dennis(2, 10)
TINY = {"alphabet": 6, "length": 2}  # 36 completions


def main() -> int:
    """Measure and print a row for each setting; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="36 completions, one instance, three values")
    tiny = parser.parse_args().tiny
    contexts, instances = (CONTEXTS[1::3], INSTANCES[1:2]) if tiny else (CONTEXTS, INSTANCES)
    print("share of the possible gain that one g for all prompts leaves [each instance]")
    print("rho     h    " + "".join(f"c {context:<25g}" for context in contexts))
    for rho in RHOS:
        for heterogeneity in HETEROGENEITIES:
            cells = []
            for context in contexts:
                gains = np.array(
                    [measured(rho, heterogeneity, context, seed, TINY if tiny else {}) for seed in instances]
                )  # [S, 2]
                each = " ".join(f"{left:.3f}" for left in gains[:, 0] / gains[:, 1])
                cells.append(f"{gains[:, 0].sum() / gains[:, 1].sum():.3f} [{each}]".ljust(27))
            print(f"{rho:+.1f}  {heterogeneity:.1f}  {''.join(cells)}", flush=True)
    return 0


def measured(rho: float, heterogeneity: float, context: float, seed: int, shape: dict[str, int]) -> tuple[float, float]:
    """Return what one g for all prompts leaves of J, and what there is to gain over the base, sums over preferences."""
    task = load(rho, heterogeneity, context=context, **shape).instance(seed)
    rows = task.splits["test"]
    log_reference, rewards = tables(task, rows, Scorer(task.objectives))
    wanted = task.prompt_preferences(rows, PREFERENCES)  # [M, P, K]
    base = outcome(log_reference, log_reference, rewards).rewards
    best = prompt_gains(optimal_outcome(log_reference, rewards, wanted, task.beta), base, wanted, task.beta)
    blind = [fitted(log_reference, rewards, row, base, task.beta) for row in wanted]
    return float((best - blind).sum()), float(best.sum())


def fitted(log_reference: FloatArray, rewards: FloatArray, wanted: FloatArray, base: FloatArray, beta: float) -> float:
    """Return the gain in J of the best one g for all prompts, whose users want `[P, K]`."""

    def loss(g: FloatArray) -> float:
        mixed = g.sum() * log_reference + rewards @ g / beta  # the experts' own normalisers cancel
        mixed = mixed - np.logaddexp.reduce(mixed, axis=1, keepdims=True)
        found = outcome(mixed, log_reference, rewards)
        gained = prompt_gains(Outcome(found.rewards[None], found.kl[None]), base, wanted[None], beta)
        return -float(gained[0]) / beta

    return -beta * float(minimize(loss, wanted.mean(axis=0), method="BFGS", options={"gtol": 1e-4}).fun)


if __name__ == "__main__":
    raise SystemExit(main())
