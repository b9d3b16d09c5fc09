"""Advantages per objective: how much better a completion is than others of the same prompt."""

from __future__ import annotations

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from paretune.core.errors import NonFiniteError, ShapeError

MOST_RATIO = 2.0  # for how many completions one may stand in a baseline
SMALLEST = 1e-12  # of a sum of ratios: all completions of a prompt may have become impossible
SILENT = 1e-6  # of a reward's range: advantages, and deviations within a group, below it are rounding errors
EPSILON = 1e-4  # of a reward's range, added to a deviation before dividing by it; TRL adds it as it is


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
    return _centred(*_grouped(rewards, group_size)).view(rewards.shape)


def self_critical(rewards: Tensor, group_size: int, greedy_rewards: Tensor) -> Tensor:
    """Subtract from each reward that of the greedy completion of its prompt, objective by objective.

    The greedy completions are made for the baseline alone and charged: one of G + 1 completions. Advantages need not
    sum to 0 within a group, as nothing of the group is in the baseline.

    Args:
        rewards: `[B, K]`; the G completions of a prompt are next to each other; NaN where a reward is missing.
        group_size: Completions per prompt G.
        greedy_rewards: Of the greedy completion of each prompt, repeated for its G rows, `[B, K]`.

    Returns:
        Advantages `[B, K]`; 0 where a reward or the one it is compared with is missing.

    Raises:
        ShapeError: If B is not a multiple of G, or G is below 2.

    Source:
        Rennie et al. 2017 (self-critical sequence training).

    Example:
        >>> self_critical(torch.tensor([[1.0], [0.0]]), 2, greedy_rewards=torch.tensor([[0.75], [0.75]]))
        tensor([[ 0.2500],
                [-0.7500]])
    """
    _grouped(rewards, group_size)
    return (rewards - greedy_rewards).nan_to_num(nan=0.0)


def grpo(rewards: Tensor, group_size: int, objective_weights: Tensor, ranges: ArrayLike) -> Tensor:
    """Centre each reward within its group and divide by the deviation of the group's *weighed sums* of rewards.

    `sum_k w_k A_k` is the published advantage of the sum: `(w . r - mean) / (std + epsilon)`.

    Args:
        rewards: `[B, K]`; the G completions of a prompt are next to each other; NaN where a reward is missing.
        group_size: Completions per prompt G.
        objective_weights: `[B, K]`, equal within a group.
        ranges: Lowest and highest possible reward of each objective, `[K, 2]`.

    Returns:
        Advantages `[B, K]`; 0 where a reward is missing, and in a group whose weighed sums are all equal.

    Raises:
        ShapeError: If B is not a multiple of G, or G is below 2.

    Source:
        Shao et al. 2024 (DeepSeekMath), as TRL's `multi_objective_aggregation="sum_then_normalize"`.

    Departures:
        - A missing reward counts as the mean of the others, objective by objective; TRL counts it as 0 in the sum.
        - Epsilon is 1e-4 of the range of the sum, and groups that deviate by less than 1e-6 of it are left out: the
          unit of a reward does not matter, and rounding errors are not blown up. With weights that sum to 1 and
          ranges of width 1 it is TRL's.
    """
    values, present = _grouped(rewards, group_size)
    weights = objective_weights.to(values).view(values.shape)
    centred = _centred(values, present)
    total = (weights * centred).sum(dim=2, keepdim=True)  # [B / G, G, 1]; its mean in a group is 0
    width = (weights.abs() * _widths(ranges, values)).sum(dim=2, keepdim=True)
    deviation = _deviation(total, (present & (weights != 0)).any(dim=2, keepdim=True), dim=1)
    return _divided(centred, deviation, width).view(rewards.shape)


def gdpo(rewards: Tensor, group_size: int, objective_weights: Tensor, ranges: ArrayLike) -> Tensor:
    """Centre each reward within its group and divide by its own deviation there, then by that of the batch's sums.

    `sum_k w_k A_k` is the published advantage: standardise every objective in its group, weigh, add up, and
    standardise over the batch, which here is that of one member. No affine change of a reward changes it.

    Args:
        rewards: `[B, K]`, all of one member; the G completions of a prompt are next to each other; NaN where a reward
            is missing.
        group_size: Completions per prompt G.
        objective_weights: `[B, K]`, equal within a group.
        ranges: Lowest and highest possible reward of each objective, `[K, 2]`.

    Returns:
        Advantages `[B, K]`; 0 where a reward is missing, and for a group and objective whose rewards are all equal.

    Raises:
        ShapeError: If B is not a multiple of G, or G is below 2.

    Source:
        GDPO (group reward-decoupled normalisation), as TRL's `multi_objective_aggregation="normalize_then_sum"`; the
        same idea is MO-GRPO.

    Departures:
        Epsilon of the first step is 1e-4 of the objective's range, and where a group deviates by less than 1e-6 of it
        the objective is left out; with ranges of width 1 it is TRL's. The sums are not centred over the batch: their
        mean is 0 in every group.
    """
    values, present = _grouped(rewards, group_size)
    weights = objective_weights.to(values).view(values.shape)
    deviation = _deviation(centred := _centred(values, present), present, dim=1)
    standard = _divided(centred, deviation, _widths(ranges, values))
    known = (present & (weights != 0)).any(dim=2)
    spread = _deviation((weights * standard).sum(dim=2)[known], torch.ones_like(known[known]), dim=0)
    return (standard / (spread + EPSILON)).view(rewards.shape)


def _centred(values: Tensor, present: Tensor) -> Tensor:
    """Return values `[B / G, G, K]` less the mean of those that are there; 0 where one is not."""
    mean = values.sum(dim=1, keepdim=True) / present.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.where(present, values - mean, torch.zeros_like(values))


def _deviation(centred: Tensor, present: Tensor, dim: int) -> Tensor:
    """Return the standard deviation (of a sample: n - 1) of values of mean 0, over those that are there."""
    squares = torch.where(present, centred, torch.zeros_like(centred)).square().sum(dim=dim, keepdim=True)
    return (squares / (present.sum(dim=dim, keepdim=True) - 1).clamp(min=1)).sqrt()


def _divided(centred: Tensor, deviation: Tensor, widths: Tensor) -> Tensor:
    """Divide by deviations, where they are more than rounding leaves of rewards of these ranges; else return 0."""
    safe = torch.where(deviation > SILENT * widths, deviation + EPSILON * widths, torch.inf)
    return centred / safe


def _widths(ranges: ArrayLike, like: Tensor) -> Tensor:
    bounds = torch.as_tensor(ranges).to(like)
    return bounds[:, 1] - bounds[:, 0]


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


def fold_in_kl(advantages: Tensor, kl: Tensor, beta: float | Tensor, group_size: int) -> Tensor:
    """Subtract the advantage of the KL term from every objective: `A_k - beta A_KL`.

    With it the gradient of objective k is that of `J_k = E r_k - beta KL`, and any weights that sum to 1 give the
    gradient of J. Never normalised, and never an objective of its own. A completion whose reward is missing keeps its
    KL, which is known all the same: `reweighted` does so too.

    Estimators that normalise rewards (`grpo`, `gdpo`) leave the KL as it is, as in TRL, whose KL term stands in the
    loss beside normalised advantages. There beta is in deviations per nat, not in reward units: what is maximised is
    no longer J, and how strong the KL is depends on how far the rewards of a group differ.

    Args:
        advantages: `[B, K]`.
        kl: `log pi(y|x) - log pi_ref(y|x)` of each sampled completion in nats (sequence-level k1), `[B]`.
        beta: KL coefficient, reward units per nat, one or one a row `[B]`.
        group_size: Completions per prompt G.
    """
    return advantages - _column(beta) * leave_one_out(kl[:, None], group_size)


def _column(beta: float | Tensor) -> float | Tensor:
    return beta[:, None] if isinstance(beta, Tensor) else beta


def reweighted(rewards: Tensor, kl: Tensor, ratios: Tensor, beta: float | Tensor, group_size: int) -> Tensor:
    """Return the advantages of a later epoch: against a baseline of what the policy would sample now.

    `A_ik = x_ik - sum_j v_j x_jk / sum_j v_j` over the group, with `x_ik = r_ik - beta kl_i` and `v_j = min(rho_j, 2)`:
    a completion that has become twice as likely stands for two. A missing reward counts as the mean of the others, so
    that its completion says nothing about the reward, and is in the KL like any other.

    Args:
        rewards: `[B, K]`; NaN where a reward is missing.
        kl: `log pi(y|x) - log pi_ref(y|x)` of each completion under the policy as it is now, in nats, `[B]`.
        ratios: rho, probability now over probability when it was sampled, `[B]`.
        beta: KL coefficient, reward units per nat, one or one a row `[B]`.
        group_size: Completions per prompt G.

    Returns:
        `[B, K]`; that of the KL alone where a reward is missing or no other completion of its prompt has one.
    """
    groups = rewards.view(-1, group_size, rewards.shape[1])
    present = ~groups.isnan()
    known = present & (present.sum(dim=1, keepdim=True) > 1)
    weights = ratios.clamp(max=MOST_RATIO).view(-1, group_size, 1).repeat(1, 1, rewards.shape[1])
    mean = _weighed_mean(torch.where(known, groups, torch.zeros_like(groups)), weights * known)
    values = torch.where(known, groups, mean) - (beta * kl).view(-1, group_size, 1)
    return (values - _weighed_mean(values, weights)).view(rewards.shape)


def _weighed_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the mean over the completions of each prompt, `[B / G, 1, K]`; 0 where nothing has weight."""
    return (weights * values).sum(dim=1, keepdim=True) / weights.sum(dim=1, keepdim=True).clamp(min=SMALLEST)


def reweighted_kl(advantages: Tensor, kl: Tensor, ratios: Tensor, beta: float | Tensor, group_size: int) -> Tensor:
    """Fold the KL of a later epoch into advantages `[B, K]` that some other estimator made of the rewards."""
    none = torch.zeros(len(kl), 1, dtype=advantages.dtype, device=advantages.device)
    return advantages + reweighted(none, kl, ratios, beta, group_size)


def widths_made(made: Tensor, rewards: Tensor, widths: Tensor) -> Tensor:
    """Return how much advantages in a unit that nobody knows could differ, `[R, K]`, by what was made of some rewards.

    That is the largest of them, and at most the width of the rewards: no more is silenced than if they were in the
    unit of these. Where the rewards of an objective are all equal but for rounding, so is what was made of them, and
    its largest says nothing: there it is the width.

    Args:
        made: Advantages of R members `[R, N, K]`, without KL.
        rewards: What they were made of, or what that was made of, `[R, N, K]`; NaN where one is missing.
        widths: Highest minus lowest possible of these rewards, `[R, K]`.
    """
    largest = made.to(widths).abs().amax(dim=1)
    known = rewards.to(widths)
    spread = known.nan_to_num(nan=-torch.inf).amax(dim=1) - known.nan_to_num(nan=torch.inf).amin(dim=1)
    return torch.where((spread >= SILENT * widths) & (largest > 0), largest.minimum(widths), widths)


def silenced(advantages: Tensor, widths: Tensor, group_size: int) -> Tensor:
    """Set the advantages of a prompt and objective to 0 where all of them are below what rounding leaves.

    An objective whose reward is constant has advantages of the size of rounding errors, and an optimiser that
    normalises its steps would follow them as far as real ones.

    Args:
        advantages: With the KL folded in, `[B, K]`.
        widths: How much advantages of each objective could differ, `[K]`, or in each row `[B, K]`: see `widths_made`.
        group_size: Completions per prompt G.
    """
    groups = advantages.view(-1, group_size, advantages.shape[1])
    least = SILENT * widths.to(groups).expand(advantages.shape).reshape(groups.shape)
    heard = (groups.abs() >= least).any(dim=1, keepdim=True)
    return torch.where(heard, groups, torch.zeros_like(groups)).view(advantages.shape)
