"""What is told of an update, under the names of TRL where it has them: docs/tracking.md lists them."""

from __future__ import annotations

import math
from collections.abc import Sequence

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
    found: dict[str, object] = {name: event.get(key) for key, name in AS_THEY_ARE.items()}
    for key, name in BY_OBJECTIVE.items():
        found |= {name.format(each): value for each, value in zip(run.objectives, _list(event.get(key)), strict=False)}
    beta, kl, length, reward = (
        _number(each) for each in (event.get("beta", run.beta), *map(event.get, ("kl", "mean_length", "reward")))
    )
    found |= {"completions": update.completions, "beta": beta}
    if kl is not None and length:
        found["kl"] = kl / length  # TRL's is by token
    if reward is not None and kl is not None and beta is not None:
        found["J"] = reward - beta * kl
    clipped, ratios = ([_number(each) for each in _list(event.get(name))] for name in ("clipped", "ratio"))
    if clipped:
        found["clip_ratio/region_mean"] = _mean([0.0, *clipped])  # none in the first epoch
        found["ratio"] = _mean(ratios)
    numbers = {name: _number(value) for name, value in found.items()}
    return {name: value for name, value in numbers.items() if value is not None}


def _number(value: object) -> float | None:
    """Return a finite number, None for all else: a user's own stage logs what it likes."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _mean(values: Sequence[float | None]) -> float | None:
    known = [each for each in values if each is not None]
    return math.fsum(known) / len(known) if 0 < len(known) == len(values) else None
