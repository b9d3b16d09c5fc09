"""Keeping a policy near the base model: a coefficient that is steered to a target."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from paretune.core.preferences import FloatArray
from paretune.rl.settings import check_target

MOST_ERROR = 0.2  # relative distance from the target that counts in an update, as published
RATE = 0.1  # of change in an update, as published: beta changes by at most 2 % in one


def adapted(beta: float, kl: float, target_kl: float) -> float:
    """Return the coefficient of the next update: `beta (1 + .1 clip(KL / target - 1, -.2, .2))`.

    Args:
        beta: Coefficient of this update.
        kl: Mean KL of its completions from the base model, nats.
        target_kl: Wanted, nats a completion.

    Source:
        Ziegler et al. 2019, Fine-tuning language models from human preferences, section 2.2; used by InstructGPT.

    Example:
        >>> round(adapted(0.5, kl=6.0, target_kl=2.0), 3), round(adapted(0.5, kl=1.9, target_kl=2.0), 4)
        (0.51, 0.4975)
    """
    return beta * (1 + RATE * float(np.clip(kl / target_kl - 1, -MOST_ERROR, MOST_ERROR)))


def distance(log_ratios: Tensor, members: int) -> FloatArray:
    """Return how far each member's policy is from the one that sampled, nats a completion, `[R]`.

    Args:
        log_ratios: `log pi_now - log pi_sampled` of sampled completions `[B]`, the members' blocks one after the other.
        members: R.

    Source:
        The estimate k3 of Schulman 2020: `mean(rho - 1 - log rho)`, which is never negative.
    """
    rows = log_ratios.double().cpu()
    return np.asarray((rows.exp() - 1 - rows).view(members, -1).mean(dim=1).numpy())


class KlControl:
    """The KL coefficient of every member: the task's, or steered to a target, each member's by its own KL."""

    def __init__(self, beta: float, target_kl: float, members: int) -> None:
        """Start every member at the task's coefficient.

        Raises:
            ConfigError: If there is a target and nothing to start from.
        """
        check_target(beta, target_kl)
        self.target_kl, self.betas = target_kl, [beta] * members

    def rows(self, active: Sequence[int], size: int) -> Tensor:
        """Return the coefficient of every row of the active members, `size` rows each, `[B]`."""
        own = torch.tensor([self.betas[index] for index in active], dtype=torch.float64)
        return own.repeat_interleave(size)

    def observe(self, member: int, kl: float) -> None:
        """Take the mean KL of a member's completions of an update into account, nats."""
        if self.target_kl:
            self.betas[member] = adapted(self.betas[member], kl, self.target_kl)
