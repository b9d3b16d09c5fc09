"""Compare learning rates for experts of the embedded task, on development prompts and tuning seeds only.

    python recipes/counselling_models/learning_rate.py
    python recipes/counselling_models/learning_rate.py --tiny

`linear` with the three corners and the centre trains the very experts that the other built-in methods train too, so one
sweep serves all of them.
"""

from __future__ import annotations

import argparse

import numpy as np

import paretune
from paretune.objectives.scoring import Scorer
from paretune.rl.evaluation import evaluate

LEARNING_RATES = (0.002, 0.003, 0.005, 0.01)
SEEDS = (10_000, 10_001)  # tuning seeds: reported studies use small ones
COMPLETIONS, SAMPLES = 6_000, 4
BEFORE = {"epochs": 1, "average_decay": 0.0}  # the default when this was made; recipes/learner/ goes on from it


def main() -> None:
    """Train, evaluate on development prompts, print one line for each rate and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="one rate, one seed, a few completions")
    tiny = parser.parse_args().tiny
    task = paretune.load_task("counselling")
    preferences = np.vstack([np.eye(len(task.objectives)), np.full(len(task.objectives), 1 / len(task.objectives))])
    audit = [objective.name for objective in task.audit]
    score = Scorer((*task.objectives, *task.audit))
    for seed in SEEDS[: 1 if tiny else None]:
        for rate in LEARNING_RATES[: 1 if tiny else None]:
            solutions = paretune.train(
                "linear",
                task,
                64 if tiny else COMPLETIONS,
                seed,
                preferences,
                {"learning_rate": rate, **BEFORE},
            )
            records = evaluate(
                solutions.policies_for(preferences), task.splits["development"], score, task.objective_names, audit,
                samples=1 if tiny else SAMPLES, split="development",
            )  # fmt: skip
            utilities = [float(record.scores @ row) for record, row in zip(records, preferences, strict=True)]
            kl = [record.kl for record in records]
            value = np.mean(utilities) - task.beta * np.mean(kl)
            audited = np.mean([record.audit_scores for record in records], axis=0)
            beside = " ".join(f"{name} {mean:.2f}" for name, mean in zip(audit, audited, strict=True))
            print(f"learning rate {rate:g} seed {seed}: J {value:.3f} utility {np.mean(utilities):.3f} "
                  f"KL {np.mean(kl):.2f} {beside}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
