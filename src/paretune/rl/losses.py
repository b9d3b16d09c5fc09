"""The loss whose gradient is the policy gradient."""

from __future__ import annotations

from torch import Tensor

from paretune.core.errors import ShapeError


def scalarise(advantages: Tensor, objective_weights: Tensor) -> Tensor:
    """Weigh advantages `[B, K]` with one row of weights per completion `[B, K]` into `[B]`."""
    if advantages.shape != objective_weights.shape:
        raise ShapeError(
            f"advantages and objective_weights must have one shape, got {list(advantages.shape)} and "
            f"{list(objective_weights.shape)}."
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
