"""The loss whose gradient is the policy gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from paretune.core.errors import ShapeError

FARTHEST = 20.0  # of a log-ratio: beyond, the ratio overflows before the clip can bound it


def scalarise(advantages: Tensor, objective_weights: Tensor) -> Tensor:
    """Weigh advantages `[B, K]` with one row of weights per completion `[B, K]` into `[B]`."""
    if advantages.shape != objective_weights.shape:
        raise ShapeError(
            f"advantages and objective_weights must have one shape, got {list(advantages.shape)} and "
            f"{list(objective_weights.shape)}. Give every completion a row of weights."
        )
    return (advantages * objective_weights).sum(dim=1)


def policy_gradient_loss(log_probs: Tensor, advantages: Tensor, completions: int) -> Tensor:
    """Return `-(1/N) sum_b A_b log pi(y_b | x_b)`.

    The log-probability of a completion is the *sum* over its tokens: dividing by length would favour long bad answers.

    Args:
        log_probs: `[B, T]`, 0 behind the end.
        advantages: `[B]`, without gradient.
        completions: N, completions of one expert in the whole update; in a population each expert divides by its own.

    Source:
        Williams 1992 (REINFORCE).
    """
    return -(advantages.detach() * log_probs.sum(dim=1)).sum() / completions


def log_ratios(log_probs: Tensor, sampled: Tensor) -> Tensor:
    """Return how much more likely something has become since it was sampled, in nats, within what `exp` can hold."""
    return (log_probs - sampled).clamp(-FARTHEST, FARTHEST)


def clipped_loss(ratios: Tensor, advantages: Tensor, completions: int, clip: float) -> Tensor:
    """Return `-(1/N) sum min(rho A, clip(rho, 1 - c, 1 + c) A)`.

    A completion that has become more than `1 + c` times as likely gains nothing by becoming more so, nor one that is
    to become less likely below `1 - c`.

    Args:
        ratios: rho, with gradient: one a completion `[B]`, or one a token `[B, T]`, 1 without gradient behind the end.
        advantages: `[B]`, or `[B, 1]` for ratios of tokens.
        completions: N, completions of one expert in the whole update.
        clip: c.

    Source:
        Schulman et al. 2017 (PPO); one ratio a completion as in Zheng et al. 2025 (GSPO), without its root by length.
    """
    steady = advantages.detach()
    return -torch.minimum(ratios * steady, ratios.clamp(1 - clip, 1 + clip) * steady).sum() / completions


def is_clipped(ratios: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Return which entries the clip keeps from moving further."""
    return ((advantages > 0) & (ratios > 1 + clip)) | ((advantages < 0) & (ratios < 1 - clip))
