"""Shapings: what is made of the rewards of a completion before they become advantages."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from paretune.core.errors import ConfigError, ShapeError
from paretune.core.preferences import FloatArray
from paretune.core.user_calls import shown, where_found

LOWEST, HIGHEST = 1e-4, 0.9999  # of a score before its logarithm, as published for DynaOpt and EMORL

Function = TypeVar("Function", bound=Callable[..., Tensor])


class MemberShaping(Protocol):
    """Shapes the rewards of one member, where that depends on its preference or on settings; else a function does.

    Made as a weighting is: `Class(preference, settings, ranges)`. What it returns depends on nothing else.

    It may say as its attribute `shaped_ranges` from where to where its rewards go, as a function may: see
    `shaped_ranges_of`.
    """

    def __init__(self, preference: FloatArray, settings: Mapping[str, Any], ranges: FloatArray) -> None: ...

    def shape(self, rewards: Tensor) -> Tensor:
        """Return what rewards `[B, K]` of its completions become, `[B, K]`; NaN where that is not known."""
        ...


class Product:
    """The product of scores in [0, 1], `prod_k s_k^(w_k / max w)`, as the reward of every objective.

    For equal weights it is the product of all scores, for a corner the score of its objective.

    Source:
        Min et al. 2024 (DynaOpt), "product" in its code, without preferences.
    """

    shaped_ranges: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __init__(self, preference: FloatArray, settings: Mapping[str, Any], ranges: FloatArray) -> None:
        self.powers, self.ranges = preference / preference.max(), ranges

    def shape(self, rewards: Tensor) -> Tensor:
        """Return the product in each of K columns, `[B, K]`; NaN where a score is missing that counts."""
        powers = rewards.new_tensor(self.powers)
        logs = torch.where(powers > 0, powers * log_clip(rewards, self.ranges), 0.0)
        return logs.sum(dim=1, keepdim=True).exp().expand_as(rewards).contiguous()


def shaped_to(low: float, high: float) -> Callable[[Function], Function]:
    """Say of a shaping, a function, from where to where its rewards go, whatever those it is given."""

    def marked(function: Function) -> Function:
        vars(function)["shaped_ranges"] = (low, high)
        return function

    return marked


def shaped_ranges_of(shaping: object, objectives: int) -> FloatArray | None:
    """Return lowest and highest reward of each objective after a shaping, `[K, 2]`; None where it does not say.

    It says so as its attribute `shaped_ranges`: one pair, or one of each objective. Estimators and the learner take
    that for the size of what it returns: else they know the size of rewards alone.

    Args:
        shaping: A function, or the shaping of a member.
        objectives: K.

    Raises:
        ConfigError: If what it says is no such pair.
    """
    said: Any = getattr(shaping, "shaped_ranges", None)
    if said is None:
        return None
    try:
        bounds = np.broadcast_to(np.asarray(said, dtype=np.float64), (objectives, 2))
    except (TypeError, ValueError):
        bounds = np.full((objectives, 2), np.nan)
    if not (np.isfinite(bounds).all() and (bounds[:, 1] > bounds[:, 0]).all()):
        where = where_found(shaping if callable(shaping) else type(shaping))
        raise ConfigError(
            f"shaped_ranges of shaping {where} must be the lowest and a higher highest reward, one pair or one of each "
            f"objective, got {shown(said)}. Correct it, or leave it out."
        )
    return bounds.copy()


@shaped_to(0.0, 1.0)
def to_unit(rewards: Tensor, ranges: ArrayLike) -> Tensor:
    """Return rewards mapped to [0, 1] by their objectives' ranges, `[B, K]`; NaN where one is missing.

    Args:
        rewards: `[B, K]`.
        ranges: Lowest and highest possible reward of each objective, `[K, 2]`.

    Raises:
        ShapeError: If there is not one range per objective.

    Example:
        >>> to_unit(torch.tensor([[0.5, 1.0]]), [[0, 1], [-1, 3]])
        tensor([[0.5000, 0.5000]])
    """
    bounds = torch.as_tensor(ranges, dtype=rewards.dtype, device=rewards.device)
    if rewards.ndim != 2 or bounds.shape != (rewards.shape[1], 2):
        raise ShapeError(
            f"ranges must be [K, 2] for rewards [B, K], got {list(bounds.shape)} and {list(rewards.shape)}. Give every "
            "objective its lowest and highest reward."
        )
    low, high = bounds.unbind(dim=1)
    return (rewards - low) / (high - low)


@shaped_to(math.log(LOWEST), 0.0)
def log_clip(rewards: Tensor, ranges: ArrayLike) -> Tensor:
    """Return `ln(clip(s, 1e-4, .9999))`, where s is the reward mapped to [0, 1] by its objective's range.

    The sum of logarithms is that of a product of scores: the objective with the lowest score has the steepest slope.

    Args:
        rewards: `[B, K]`, NaN where a reward is missing.
        ranges: Lowest and highest possible reward of each objective, `[K, 2]`.

    Returns:
        Shaped rewards `[B, K]` from -9.21 to 0; NaN where a reward is missing.

    Raises:
        ShapeError: If there is not one range per objective.

    Source:
        Min et al. 2024 (DynaOpt), "logsum" in its code.

    Example:
        >>> log_clip(torch.tensor([[0.5, 1.0], [0.0, 2.0]]), [[0, 1], [-1, 3]])
        tensor([[-0.6931, -0.6931],
                [-9.2103, -0.2877]])
    """
    return to_unit(rewards, ranges).clamp(LOWEST, HIGHEST).log()
