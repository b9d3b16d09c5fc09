"""Advantages per objective: how much better a completion is than others of the same prompt."""

from __future__ import annotations

import torch
from torch import Tensor

from paretune.core.errors import NonFiniteError, ShapeError

MOST_RATIO = 2.0  # for how many completions one may stand in a baseline
SMALLEST = 1e-12  # of a sum of ratios: all completions of a prompt may have become impossible
SILENT = 1e-6  # of a reward's range: advantages below it are rounding errors


def leave_one_out(rewards: Tensor, group_size: int) -> Tensor:
    """Subtract from each reward the mean of the other completions of its prompt, objective by objective.

    Args:
        rewards: `[B, K]`; the G completions of a prompt are next to each other; NaN where a reward is missing.
        group_size: Completions per prompt G.

    Returns:
        Advantages `[B, K]`; 0 where a reward is missing or no other completion of its prompt has one: such a row
        says nothing about that objective, and is left out of the others' baseline.

    Raises:
        ShapeError: If B is not a multiple of G, or G is below 2.

    Source:
        Kool, van Hoof and Welling 2019; Ahmadian et al. 2024 (RLOO).

    Example:
        >>> leave_one_out(torch.tensor([[1.0], [0.0], [0.5]]), group_size=3)
        tensor([[ 0.7500],
                [-0.7500],
                [ 0.0000]])
    """
    values, present = _grouped(rewards, group_size)
    others = present.sum(dim=1, keepdim=True) - present.to(torch.int64)
    baseline = (values.sum(dim=1, keepdim=True) - values) / others.clamp(min=1)
    known = present & (others > 0)
    return torch.where(known, values - baseline, torch.zeros_like(values)).view(rewards.shape)


def k_sample_mean(rewards: Tensor, group_size: int) -> Tensor:
    """Subtract from each reward the mean over its prompt's completions, itself included, objective by objective.

    Without missing rewards it is `leave_one_out` times (G - 1) / G: its own reward in the baseline costs a completion
    that share of its signal. Kept for methods that are published with it.

    Args:
        rewards: `[B, K]`; the G completions of a prompt are next to each other; NaN where a reward is missing.
        group_size: Completions per prompt G.

    Returns:
        Advantages `[B, K]`; 0 where a reward is missing or no other completion of its prompt has one.

    Raises:
        ShapeError: If B is not a multiple of G, or G is below 2.

    Source:
        The "k-SCST" of Laban et al. 2021 (Keep it Simple), with which DynaOpt and EMORL train.

    Example:
        >>> k_sample_mean(torch.tensor([[1.0], [0.0], [0.5]]), group_size=3)
        tensor([[ 0.5000],
                [-0.5000],
                [ 0.0000]])
    """
    values, present = _grouped(rewards, group_size)
    mean = values.sum(dim=1, keepdim=True) / present.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.where(present, values - mean, torch.zeros_like(values)).view(rewards.shape)


def _grouped(rewards: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """Return rewards as `[B / G, G, K]`, 0 for a missing one, and which of them are there."""
    if group_size < 2 or rewards.ndim != 2 or rewards.shape[0] % group_size:
        raise ShapeError(
            f"rewards must be [B, K] with B a multiple of the group size, at least 2, got {list(rewards.shape)} and "
            f"{group_size}. Keep all completions of a prompt together."
        )
    groups = rewards.view(-1, group_size, rewards.shape[1])
    present = ~groups.isnan()
    return torch.where(present, groups, torch.zeros_like(groups)), present


def check_made(slot: str, made: object, rewards: Tensor, missing: bool = False) -> Tensor:
    """Return what a method's own code made of rewards `[B, K]`, if a policy can learn from it.

    Args:
        slot: What that code is and where it is found, for the message: `shaping rewards:lift`.
        made: What it returned.
        rewards: What it was given, NaN where one is missing.
        missing: Whether NaN may stay where a reward is missing.

    Raises:
        ShapeError: If it is no tensor of one number for each reward.
        NonFiniteError: If a number is NaN or infinite.
    """
    if not isinstance(made, Tensor) or made.shape != rewards.shape:
        got = f"shape {list(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
        raise ShapeError(
            f"{slot} must return a tensor of one number per reward {list(rewards.shape)}, got {got}. Correct it."
        )
    whole = made.isfinite() | (rewards.isnan() & made.isnan()) if missing else made.isfinite()
    if not bool(whole.all()):
        raise NonFiniteError(
            f"{slot} must return finite numbers, got {float(made[~whole][0])} for a reward of "
            f"{float(rewards[~whole][0])}. Correct it."
        )
    return made


def fold_in_kl(advantages: Tensor, kl: Tensor, beta: float, group_size: int) -> Tensor:
    """Subtract the advantage of the KL term from every objective: `A_k - beta A_KL`.

    With it the gradient of objective k is that of `J_k = E r_k - beta KL`, and any weights that sum to 1 give the
    gradient of J. Never normalised, and never an objective of its own. A completion whose reward is missing keeps its
    KL, which is known all the same: `reweighted` does so too.

    Args:
        advantages: `[B, K]`.
        kl: `log pi(y|x) - log pi_ref(y|x)` of each sampled completion in nats (sequence-level k1), `[B]`.
        beta: KL coefficient, reward units per nat.
        group_size: Completions per prompt G.
    """
    return advantages - beta * leave_one_out(kl[:, None], group_size)


def reweighted(rewards: Tensor, kl: Tensor, ratios: Tensor, beta: float, group_size: int) -> Tensor:
    """Return the advantages of a later epoch: against a baseline of what the policy would sample now.

    `A_ik = x_ik - sum_j v_j x_jk / sum_j v_j` over the group, with `x_ik = r_ik - beta kl_i` and `v_j = min(rho_j, 2)`:
    a completion that has become twice as likely stands for two. A missing reward counts as the mean of the others, so
    that its completion says nothing about the reward, and is in the KL like any other.

    Args:
        rewards: `[B, K]`; NaN where a reward is missing.
        kl: `log pi(y|x) - log pi_ref(y|x)` of each completion under the policy as it is now, in nats, `[B]`.
        ratios: rho, probability now over probability when it was sampled, `[B]`.
        beta: KL coefficient, reward units per nat.
        group_size: Completions per prompt G.

    Returns:
        `[B, K]`; that of the KL alone where a reward is missing or no other completion of its prompt has one.
    """
    groups = rewards.view(-1, group_size, rewards.shape[1])
    present = ~groups.isnan()
    known = present & (present.sum(dim=1, keepdim=True) > 1)
    weights = ratios.clamp(max=MOST_RATIO).view(-1, group_size, 1).repeat(1, 1, rewards.shape[1])
    mean = _weighed_mean(torch.where(known, groups, torch.zeros_like(groups)), weights * known)
    values = torch.where(known, groups, mean) - beta * kl.view(-1, group_size, 1)
    return (values - _weighed_mean(values, weights)).view(rewards.shape)


def _weighed_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the mean over the completions of each prompt, `[B / G, 1, K]`; 0 where nothing has weight."""
    return (weights * values).sum(dim=1, keepdim=True) / weights.sum(dim=1, keepdim=True).clamp(min=SMALLEST)


def reweighted_kl(advantages: Tensor, kl: Tensor, ratios: Tensor, beta: float, group_size: int) -> Tensor:
    """Fold the KL of a later epoch into advantages `[B, K]` that some other estimator made of the rewards."""
    none = torch.zeros(len(kl), 1, dtype=advantages.dtype, device=advantages.device)
    return advantages + reweighted(none, kl, ratios, beta, group_size)


def silenced(advantages: Tensor, widths: Tensor, group_size: int) -> Tensor:
    """Set the advantages of a prompt and objective to 0 where all of them are below what rounding leaves.

    An objective whose reward is constant has advantages of the size of rounding errors, and an optimiser that
    normalises its steps would follow them as far as real ones.

    Args:
        advantages: With the KL folded in, `[B, K]`.
        widths: Highest minus lowest possible reward of each objective, `[K]`.
        group_size: Completions per prompt G.
    """
    groups = advantages.view(-1, group_size, advantages.shape[1])
    heard = (groups.abs() >= SILENT * widths.to(groups)).any(dim=1, keepdim=True)
    return torch.where(heard, groups, torch.zeros_like(groups)).view(advantages.shape)
