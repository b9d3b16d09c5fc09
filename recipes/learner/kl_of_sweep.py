"""Utility, KL and J of the settings that a study has tuned over, on development prompts; it chooses by utility alone.

    paretune run recipes/learner/sweep_counselling.yaml -o sweep
    python recipes/learner/kl_of_sweep.py sweep

The policies are those that were handed over: averages of the parameters where the setting asks for them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from paretune.core.stages import in_order
from paretune.methods.entries import method_entry
from paretune.models.solutions import SolutionSet
from paretune.objectives.scoring import Scorer
from paretune.rl.evaluation import evaluate
from paretune.tasks import load_task
from paretune.training.finished import stage_result


def measured(trial: Path, root: Path, samples: int) -> tuple[float, float, float]:
    """Return mean utility, KL in nats and J of a trial's policies, each for the preference it is given."""
    about = json.loads(trial.read_text())
    task, given = load_task(about["task"]).instance(about["seed"]), np.array(about["training_preferences"])
    entry = method_entry(about["method"], {"method": about["source"], **about["settings"]}, about["method"])
    asked = entry.method.stages(task, given, about["budget_completions"], about["seed"])
    results = {stage.key(task): stage_result(root, stage, task) for stage in in_order(asked, task)}
    solutions = SolutionSet.from_assembly(
        task, entry.method.assemble(task, given, results), entry.label, entry.method.family
    )
    records = evaluate(
        solutions.policies_for(given), task.splits["development"], Scorer(task.objectives), task.objective_names,
        samples=samples, seed=about["seed"], split="development",
    )  # fmt: skip
    utility = float(np.mean([(each.rewards @ point).mean() for each, point in zip(records, given, strict=True)]))
    kl = float(np.mean([(each.log_probs - each.reference_log_probs).mean() for each in records]))
    return utility, kl, utility - task.beta * kl


def main() -> int:
    """Print one line of comma-separated values for each trial, and one for each setting; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of a study with `tune:`")
    parser.add_argument("--samples", type=int, default=2, help="completions of each development prompt")
    arguments = parser.parse_args()
    trials = sorted(path.with_name("cell.json") for path in arguments.folder.glob("tuning/*/score.json"))
    if not trials:
        print(f"folder must hold a study that was tuned, got '{arguments.folder}'. Run it first.", file=sys.stderr)
        return 2
    found: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    print("method,settings,seed,utility,kl,J")
    for trial in trials:
        about = json.loads(trial.read_text())
        tried = " ".join(f"{name}={value}" for name, value in json.loads(about["tried"]).items())
        values = measured(trial, arguments.folder, arguments.samples)
        found[f"{about['method']},{tried}"].append(values)
        print(f"{about['method']},{tried},{about['seed']}," + ",".join(f"{value:.4f}" for value in values), flush=True)
    for name, trials_of in sorted(found.items()):
        print(f"{name},all," + ",".join(f"{value:.4f}" for value in np.mean(trials_of, axis=0)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
