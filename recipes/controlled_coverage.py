"""Does the interval of the estimated optimum hold the true one? Counted over instances of the controlled task.

    python recipes/controlled_coverage.py             # 300 instances, minutes
    python recipes/controlled_coverage.py --tiny      # to see it run

Every instance is another base model with other prompts and rewards. Of each, 256 completions a prompt are sampled from
the base, and J* is estimated from them for both corners and the centre; the truth is summed over all completions. Two
settings: beta raised until the corner optimum is 1.2 nats from the base, and the task's own beta (1.5 nats), where a
mixture of the base and two policies on the way to the corners is sampled as well.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from numpy.typing import NDArray

from paretune.core.seeds import generator
from paretune.objectives.scoring import Scorer
from paretune.optimum.estimated import Proposals, estimated_front
from paretune.optimum.exact import log_optimum, optimal_outcome
from paretune.rl.outcomes import tables
from paretune.tasks import load_task
from paretune.tasks.controlled.fields import corner_kl

FloatArray = NDArray[np.float64]
INSTANCES, SAMPLES = 300, 256
RHOS = (-0.8, 0.0, 0.8)  # taken in turn
PREFERENCES = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
LOWER_KL = 1.2  # nats: the largest corner KL at which base samples must do


def main() -> int:
    """Count and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="three instances")
    instances = 3 if parser.parse_args().tiny else INSTANCES
    held: dict[str, list[list[bool | None]]] = {"1.2 nats, base": [], "own beta, base": [], "own beta, mixture": []}
    for seed in range(instances):
        task = load_task({"controlled": {"rho": RHOS[seed % len(RHOS)]}}).instance(seed)
        log_reference, rewards = tables(task, task.splits["test"], Scorer(task.objectives))
        random = generator("coverage", seed)
        base = draw(log_reference, SAMPLES, random)
        wide = beta_for(log_reference, rewards, LOWER_KL, task.beta)
        held["1.2 nats, base"].append(check(log_reference, rewards, base, wide, None))
        held["own beta, base"].append(check(log_reference, rewards, base, task.beta, None))
        tilted = [log_optimum(log_reference, rewards, corner, 2 * task.beta) for corner in np.eye(2)]
        parts = [draw(log_reference, SAMPLES // 2, random), *(draw(log, SAMPLES // 4, random) for log in tilted)]
        places = np.concatenate(parts, axis=1)
        rows = np.arange(len(places))[:, None]
        logs = np.stack([log_reference[rows, places], *(log[rows, places] for log in tilted)], axis=2)
        proposals = Proposals(logs[:, :, 0], logs, tuple(part.shape[1] for part in parts))
        held["own beta, mixture"].append(check(log_reference, rewards, places, task.beta, proposals))
        if sys.stderr.isatty() or seed % 50 == 49:
            print(f"{seed + 1} of {instances} instances", file=sys.stderr)
    for name, rows_held in held.items():
        flat = [each for row in rows_held for each in row]
        answered = [each for each in flat if each is not None]
        share = f"{np.mean(answered):.3f}" if answered else "missing"
        print(f"{name}: {len(answered)} of {len(flat)} answered, the interval holds J* in {share}")
        for index, preference in enumerate(PREFERENCES):
            mine = [bool(row[index]) for row in rows_held if row[index] is not None]
            print(f"  preference {preference.tolist()}: {np.mean(mine):.3f} of {len(mine)}" if mine else "  none")
    return 0


def draw(log_probs: FloatArray, samples: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Sample completions of every prompt, `[P, S]`."""
    cumulative = np.exp(log_probs).cumsum(axis=1)
    uniform = random.random((len(log_probs), samples)) * cumulative[:, -1:]
    return np.stack([np.searchsorted(row, each) for row, each in zip(cumulative, uniform, strict=True)])


def beta_for(log_reference: FloatArray, rewards: FloatArray, nats: float, start: float) -> float:
    """Return the beta at which the larger corner KL is `nats`."""
    low, high = start / 10, start * 10
    for _ in range(40):
        middle = float(np.sqrt(low * high))
        if corner_kl(log_reference, rewards, middle).max() > nats:
            low = middle
        else:
            high = middle
    return high


def check(
    log_reference: FloatArray, rewards: FloatArray, places: NDArray[np.int64], beta: float, proposals: Proposals | None
) -> list[bool | None]:
    """Return for each preference whether the interval holds J*; None where no estimate was given."""
    sampled = rewards[np.arange(len(places))[:, None], places]
    found = estimated_front(sampled, PREFERENCES, beta, proposals)
    truth = optimal_outcome(log_reference, rewards, PREFERENCES, beta).scores(beta)
    best = np.einsum("mk,mk->m", PREFERENCES, truth)
    return [
        None if found.reasons[index] else bool(found.best.low[index] <= value <= found.best.high[index])
        for index, value in enumerate(best)
    ]


if __name__ == "__main__":
    sys.exit(main())
