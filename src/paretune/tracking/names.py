"""What is told of an update, under the names of TRL where it has them: docs/tracking.md lists them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from paretune.tracking import TrackedRun
from paretune.tracking.updates import Update

AS_THEY_ARE = {  # in the event: here
    "reward": "reward",
    "reward_std": "reward_std",
    "flat_groups": "frac_reward_zero_std",
    "mean_length": "completions/mean_length",
    "shortest": "completions/min_length",
    "longest": "completions/max_length",
    "entropy": "entropy",
    "grad_norm": "grad_norm",
    "seconds": "step_time",
    "kl": "kl_per_completion",
    "log_prob_gap": "log_prob_gap",
    "generation": "generation",
    "individual": "individual",
    "step": "outer_step",
}
BY_OBJECTIVE = {
    "reward_means": "rewards/{}/mean",
    "reward_stds": "rewards/{}/std",
    "missing": "rewards/{}/missing",
    "mean_weights": "weights/{}",
    "conflicts": "conflicts/{}",
}


def metrics_of(update: Update, run: TrackedRun) -> dict[str, float]:
    """Return the numbers of an update by name; what it does not tell, or could not be made, is left out."""
    event = update.event
    found: dict[str, Any] = {name: event.get(key) for key, name in AS_THEY_ARE.items()}
    for key, name in BY_OBJECTIVE.items():
        found |= {name.format(each): value for each, value in zip(run.objectives, event.get(key) or (), strict=False)}
    beta = event.get("beta", run.beta)
    found |= {"completions": update.completions, "beta": beta}
    if event.get("mean_length"):
        found["kl"] = event["kl"] / event["mean_length"]  # TRL's is by token
    if event.get("reward") is not None:
        found["J"] = event["reward"] - beta * event["kl"]
    if event.get("clipped"):
        found["clip_ratio/region_mean"] = sum(event["clipped"]) / (len(event["clipped"]) + 1)  # none in the first epoch
        found["ratio"] = _mean(event["ratio"])
    return {name: float(value) for name, value in found.items() if value is not None and math.isfinite(value)}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
