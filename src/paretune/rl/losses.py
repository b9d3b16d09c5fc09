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
    Other normalisations multiply the advantages by `completion_factors`.

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
        advantages: `[B]`, or `[B, 1]` for ratios of tokens; times the tokens of a completion for roots by length.
        completions: N, completions of one expert in the whole update.
        clip: c.

    Source:
        Schulman et al. 2017 (PPO); one ratio a completion as in Zheng et al. 2025 (GSPO), there with its root by
        length.
    """
    steady = advantages.detach()
    return -torch.minimum(ratios * steady, ratios.clamp(1 - clip, 1 + clip) * steady).sum() / completions


def completion_factors(loss_type: str, lengths: Tensor, members: int, longest: int, micro_batch: int = 0) -> Tensor:
    """Return what a completion's tokens count beside those of the default loss, which is 1, `[B]`.

    Multiplied by advantages `A_b`, or by any term of its tokens, losses become (N completions of a member, `n_b` tokens
    of one, l_bt the loss of a token):
    `sum` is `(1/N) sum_b sum_t l_bt`, the gradient of the expected reward;
    `grpo` is `(1/N) sum_b (1/n_b) sum_t l_bt`, under which a long bad completion is pushed down less a token than a
    short one, so that bad completions get longer;
    `bnpo` is `sum l / sum n` of a backward pass, and the mean over passes;
    `dapo` is `sum l / sum n` of the update;
    `dr_grpo` is `sum l / (N longest)`, a constant times `sum`.

    Args:
        loss_type: One of them.
        lengths: Tokens of each completion `[B]`, the members' blocks one after the other.
        members: How many.
        longest: Most tokens that a completion may have.
        micro_batch: Completions of a member in a backward pass; 0: all.

    Source:
        TRL's `loss_type`: Shao et al. 2024 (grpo), Xiao et al. 2025 (bnpo), Liu et al. 2025 (dr_grpo), Yu et al. 2025
        (dapo). `sum` is how its `luspo` divides.
    """
    tokens = lengths.cpu().double()
    if loss_type == "sum":
        return torch.ones_like(tokens)
    if loss_type == "grpo":
        return 1 / tokens
    if loss_type == "dr_grpo":
        return torch.full_like(tokens, 1 / longest)
    own = tokens.view(members, -1)
    size = own.shape[1]
    if loss_type == "dapo" or not micro_batch:
        return (size / own.sum(dim=1, keepdim=True)).expand_as(own).flatten()
    parts = own.split(micro_batch, dim=1)
    factors = [(size / len(parts) / part.sum(dim=1, keepdim=True)).expand_as(part) for part in parts]
    return torch.cat(factors, dim=1).flatten()


def k3(log_probs: Tensor, reference: Tensor) -> Tensor:
    """Return `exp(d) - d - 1` with `d = log pi_ref - log pi` of each token `[B, T]`, an estimate of the KL of a token.

    Its mean is the KL of the policy from the reference; the mean of its *gradient* is not that KL's, but the gradient
    of the KL of the reference from the policy. Times the token's ratio, differentiated too, it is the former
    (`kl_estimator: k3_corrected`), for the token alone: neither counts what a token does to the KL of later ones.

    Source:
        Schulman 2020, Approximating KL divergence; Shao et al. 2024 for its place in the loss.
    """
    apart = log_ratios(reference, log_probs)
    return apart.exp() - apart - 1


def is_clipped(ratios: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Return which entries the clip keeps from moving further."""
    return ((advantages > 0) & (ratios > 1 + clip)) | ((advantages < 0) & (ratios < 1 - clip))
