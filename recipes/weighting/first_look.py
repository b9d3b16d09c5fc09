"""A first look at scalarisations and dynamic weights on one tuning instance of a controlled task: no claim.

    python recipes/weighting/first_look.py             # rho -.8, instance 10,000, 1,536 completions a policy
    python recipes/weighting/first_look.py --tiny      # to see it run

Four preferences, the corners and (2/3, 1/3), (1/3, 2/3). At a corner every one of these methods trains what `linear`
trains, so corners are trained once. Shares are of the possible gain over the base model, under three utilities.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import paretune
from paretune.core.preferences import FloatArray, corners
from paretune.objectives.scoring import Scorer
from paretune.optimum.best_utility import Envelope, best_utility, chebyshev_envelope, threshold_envelope
from paretune.pareto.scalarisation import chebyshev_utility, threshold_utility
from paretune.rl.outcomes import enumeration_of, outcomes, tables

COMPLETIONS, INSTANCE = 1536, 10_000
BETWEEN = np.asarray([[2.0, 1.0], [1.0, 2.0]]) / 3
PULLED = ("dynaopt", "contextual_dynaopt", "dorb", "q_weighting")
METHODS: list[tuple[str, dict[str, Any]]] = [
    ("linear", {}),
    *(("chebyshev", {"form": form}) for form in ("smooth", "plain", "augmented")),
    *((name, {"feedback": feedback}) for name in PULLED for feedback in ("measured", "shuffled")),
]


def main() -> None:
    """Train, score exactly, and print a line for each method as it is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="two methods, few completions")
    tiny = parser.parse_args().tiny
    each = 128 if tiny else COMPLETIONS
    task = paretune.load_task({"controlled": {"rho": -0.8, "heterogeneity": 0.0}}).instance(INSTANCE)
    rows = task.splits["test"]
    log_reference, rewards = tables(task, rows, Scorer(task.objectives))
    base = np.einsum("py,pyk->k", np.exp(log_reference), rewards) / len(rows)
    points = np.concatenate([corners(2), BETWEEN])
    best = {
        name: np.asarray([best_utility(log_reference, rewards, task.beta, of(point)).utility for point in points])
        for name, (_, of) in utilities(task).items()
    }

    def scores(name: str, wanted: FloatArray, settings: dict[str, Any]) -> FloatArray:
        made = paretune.train(
            name, task, each * len(wanted), INSTANCE, wanted, {"completions_each": each, **settings}
        ).policies_for(wanted)
        found = outcomes(made, rows, enumeration_of(task), log_reference, rewards, scales=(1.0,))
        achieved, kl = found.at_scale(1.0)
        return np.asarray((achieved - task.beta * kl[..., None]).mean(axis=1))

    ends = scores("linear", corners(2), {})
    print("method, settings: share of the possible gain in", *best, sep=", ", flush=True)
    for name, settings in METHODS[:2] if tiny else METHODS:
        found = np.concatenate([ends, scores(name, BETWEEN, settings)])
        shares = []
        for kind, (value, _) in utilities(task).items():
            gained, possible = np.transpose(
                [
                    (value(row, point) - value(base, point), most - value(base, point))
                    for row, point, most in zip(found, points, best[kind], strict=True)
                ]
            )
            shares += [f"{gained.sum() / possible.sum():.3f} ({gained[2:].sum() / possible[2:].sum():.3f})"]
        print(name, *settings.values(), *shares, sep=", ", flush=True)


def utilities(task: Any) -> dict[str, tuple[Any, Any]]:
    """Return each utility of J `[K]` for a preference, and its envelope, by name."""
    low, high = np.asarray([objective.range for objective in task.objectives], dtype=np.float64).T
    limits = np.asarray([objective.pass_threshold for objective in task.objectives])
    return {
        "linear": (lambda row, w: float(row @ w), lambda w: Envelope(w, np.zeros(2), least=1.0)),
        "chebyshev": (
            lambda row, w: float(chebyshev_utility(row, w, high, low)),
            lambda w: chebyshev_envelope(w, high, low),
        ),
        "thresholds": (
            lambda row, w: float(threshold_utility(row, w, limits, 0.1)),
            lambda w: threshold_envelope(w, limits, 0.1),
        ),
    }


if __name__ == "__main__":
    main()
