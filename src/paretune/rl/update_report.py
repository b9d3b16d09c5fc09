"""What an update was, as its events tell it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor


@dataclass(eq=False)
class UpdateReport:
    """What an update was, for R members.

    Attributes:
        norms: Gradient norm of the first epoch, before clipping.
        moved: Whether there was anything to learn from.
        gaps: Mean difference between the log-probabilities of sampling and of the first epoch, nats a token.
        ratios: Mean ratio of each later epoch.
        clipped: Share of completions (or tokens) held by the clip in each later epoch.
        objective_weights: `[K]` of each member where a weighting chose them.
        engine: How the gradients of objectives were made, where they were; see `objective_gradients`.
        conflicts: `[K]` of each member where gradients of objectives were made: the share of its steps that turned
            against each objective of its preference.
        entropies: Mean entropy of each member's tokens in the first epoch, nats, where there is a bonus on it.
        stopped: Whether each member left out later epochs because its policy had moved far enough; empty where it may
            not.
    """

    norms: list[float]
    moved: list[bool]
    gaps: list[float]
    ratios: list[list[float]] = field(default_factory=list)
    clipped: list[list[float]] = field(default_factory=list)
    objective_weights: list[list[float]] = field(default_factory=list)
    engine: str = ""
    conflicts: list[list[float | None]] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    stopped: list[bool] = field(default_factory=list)

    def add_later(self, ratios: Tensor, clipped: Tensor) -> None:
        """Add a later epoch: ratio of each row `[B]`, and whether, or at which share, the clip holds it."""
        for epochs, rows in ((self.ratios, ratios), (self.clipped, clipped)):
            epochs.append(rows.double().view(len(self.norms), -1).mean(dim=1).tolist())

    def of(self, place: int) -> dict[str, object]:
        """Return what one member's event says."""
        event: dict[str, object] = {
            "grad_norm": self.norms[place], "moved": self.moved[place], "log_prob_gap": self.gaps[place],
        }  # fmt: skip
        if self.ratios:
            event["ratio"] = [epoch[place] for epoch in self.ratios]
            event["clipped"] = [epoch[place] for epoch in self.clipped]
        if self.objective_weights:
            event["objective_weights"] = self.objective_weights[place]
        if self.engine:
            event["engine"] = self.engine
        if self.conflicts:
            event["conflicts"] = self.conflicts[place]
        if self.entropies:
            event["entropy"] = self.entropies[place]
        if self.stopped:
            event["stopped"] = self.stopped[place]
        return event


def completions_event(
    rewards: Tensor,
    shaped: Tensor,
    objective_weights: Tensor,
    statuses: np.typing.NDArray[np.str_],
    kl: Tensor,
    lengths: Tensor,
    group_size: int,
) -> dict[str, object]:
    """Describe the completions of one update of one member in plain data; what no completion tells is None.

    Args:
        rewards: As they were given `[B, K]`, NaN where missing.
        shaped: What is weighed `[B, K]`: rewards after shaping.
        objective_weights: Weights in force `[B, K]`.
        statuses: Of the rewards `[B, K]`.
        kl: Log-ratio to the base model of each completion `[B]`, nats.
        lengths: Tokens of each completion `[B]`.
        group_size: Completions of each prompt, one behind the other.
    """
    counted = objective_weights > 0
    scalars = (shaped * objective_weights).masked_fill(~counted, 0.0).sum(dim=1)  # NaN where one that counts is missing
    groups = scalars.view(-1, group_size)
    unknown = groups.isnan()
    told = (~unknown).sum(dim=1) > 1  # one sum alone has nothing to differ from
    flat = groups.masked_fill(unknown, -math.inf).amax(dim=1) <= groups.masked_fill(unknown, math.inf).amin(dim=1)
    return {
        "reward_means": [_mean(column) for column in rewards.T],
        "reward_stds": [_std(column) for column in rewards.T],
        "reward": _mean(scalars),
        "reward_std": _std(scalars),
        "mean_weights": objective_weights.mean(dim=0).tolist(),
        "flat_groups": float(flat[told].double().mean()) if told.any() else None,
        "missing": [int(count) for count in (statuses != "ok").sum(axis=0)],
        "kl": float(kl.mean()),
        "mean_length": float(lengths.float().mean()),
        "shortest": int(lengths.min()),
        "longest": int(lengths.max()),
    }


def _mean(values: Tensor) -> float | None:
    present = values[~values.isnan()]
    return float(present.mean()) if len(present) else None


def _std(values: Tensor) -> float | None:
    present = values[~values.isnan()]
    return float(present.std()) if len(present) > 1 else None
