"""Which values of `context` leave a rule that reads the prompt something to find? Measured with exact experts.

    python recipes/meta_policy/context_range.py -o docs/results/data/meta_policy/context_range.csv
    python recipes/meta_policy/context_range.py -o /tmp/context_range.csv --tiny     # to see it run

An exact expert is the best policy for one objective alone. Experts of equal beta, mixed at the level of the sequence
with weights g, are `pi ~ prod pi_i^g_i`. The best g of each prompt is then what its user wants, w(x), and reaches J*;
the best g(w) is one g for all prompts, free to leave the simplex, fitted on J of these very prompts: what it lacks, no
rule that is blind to the prompt can have. The gain of reading the prompt is the ratio of sums over preferences
`(J* - J_g(w)) / (J* - J_base)`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from paretune.core.errors import ParetuneError
from paretune.core.preferences import das_dennis
from paretune.objectives.scoring import Scorer
from paretune.optimum.exact import Outcome, optimal_outcome, outcome, prompt_gains
from paretune.rl.outcomes import tables
from paretune.tasks.controlled import load

sys.path.insert(0, str(Path(__file__).parents[1]))
from csv_lines import continued  # type: ignore[import-not-found]  # one folder up

FloatArray = NDArray[np.float64]
RHOS, HETEROGENEITIES = (-0.8, 0.0, 0.8), (0.0, 0.5)
CONTEXTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
INSTANCES = (10000, 10001, 10002)
PREFERENCES = das_dennis(2, 10)
TINY = {"alphabet": 6, "length": 2}  # 36 completions
FLAT = 1e-3  # largest slope, in J over beta and units of g, at which a search counts as ended


def main() -> int:
    """Measure and write a line for each setting; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="CSV file; lines in it are not made again")
    parser.add_argument("--tiny", action="store_true", help="36 completions, one instance, three values")
    arguments = parser.parse_args()
    contexts, instances = (CONTEXTS[1::3], INSTANCES[1:2]) if arguments.tiny else (CONTEXTS, INSTANCES)
    shape = TINY if arguments.tiny else {}

    def make(key: Mapping[str, Any]) -> dict[str, object]:
        place = (key["rho"], key["heterogeneity"], key["context"])
        gains = np.array([measured(*place, seed, shape) for seed in instances])  # [S, 2]
        apart = {f"instance_{seed}": float(left) for seed, left in zip(instances, gains[:, 0] / gains[:, 1])}
        return {"gain": float(gains[:, 0].sum() / gains[:, 1].sum()), **apart}

    keys = [
        {"rho": rho, "heterogeneity": h, "context": context}
        for rho in RHOS for h in HETEROGENEITIES for context in contexts
    ]  # fmt: skip
    try:
        continued(arguments.output, keys, make, arguments.tiny)
    except ParetuneError as error:
        print(f"context_range: {error}", file=sys.stderr)
        return 2
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
    """Return the gain in J of the best one g for all prompts, whose users want `[P, K]`.

    It is the best of searches from what users want on average, from equal weights and from the base model.

    Raises:
        RuntimeError: If the best search did not end where J is flat.
    """

    def loss(g: FloatArray) -> float:
        mixed = g.sum() * log_reference + rewards @ g / beta  # the experts' own normalisers cancel
        mixed = mixed - np.logaddexp.reduce(mixed, axis=1, keepdims=True)
        found = outcome(mixed, log_reference, rewards)
        gained = prompt_gains(Outcome(found.rewards[None], found.kl[None]), base, wanted[None], beta)
        return -float(gained[0]) / beta

    starts = (wanted.mean(axis=0), np.full(wanted.shape[1], 1 / wanted.shape[1]), np.zeros(wanted.shape[1]))
    ends = [minimize(loss, start, method="BFGS", options={"gtol": FLAT / 10}) for start in starts]
    best = min(ends, key=lambda end: float(end.fun))
    if np.abs(best.jac).max() > FLAT:
        raise RuntimeError(f"the best one g for all prompts must be where J is flat, got slopes {best.jac}.")
    return -beta * float(best.fun)


if __name__ == "__main__":
    raise SystemExit(main())
