"""Shapings: what is made of the rewards of a completion before they become advantages."""

from __future__ import annotations

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from paretune.core.errors import ShapeError

LOWEST, HIGHEST = 1e-4, 0.9999  # of a score before its logarithm, as published for DynaOpt and EMORL


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
    bounds = torch.as_tensor(ranges, dtype=rewards.dtype, device=rewards.device)
    if rewards.ndim != 2 or bounds.shape != (rewards.shape[1], 2):
        raise ShapeError(
            f"ranges must be [K, 2] for rewards [B, K], got {list(bounds.shape)} and {list(rewards.shape)}. Give every "
            "objective its lowest and highest reward."
        )
    low, high = bounds.unbind(dim=1)
    return ((rewards - low) / (high - low)).clamp(LOWEST, HIGHEST).log()
