"""TIES: trim what experts add, elect a sign for every parameter, and average what agrees with it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from paretune.core.errors import ShapeError


def trim_threshold(deltas: Sequence[Tensor], density: float) -> float:
    """Return the least magnitude that is kept where a share of all entries of one expert is.

    Args:
        deltas: What the expert adds to each layer, all its layers.
        density: Share of the entries that is kept, those of largest magnitude; at least one.
    """
    sizes = torch.cat([delta.abs().flatten() for delta in deltas])
    kept = max(1, math.floor(density * len(sizes)))
    return float(sizes.kthvalue(len(sizes) - kept + 1).values)


def merge_signs(deltas: Tensor, weights: Tensor, thresholds: Tensor) -> Tensor:
    """Merge what E experts add to one layer.

    Entries below an expert's threshold are 0. Of the others the sign is elected that has more weighed magnitude, a tie
    being positive; what is merged is the weighed mean of those entries that have it.

    Args:
        deltas: What each adds, `[E, out, in]`.
        weights: Non-negative, `[E]`; with equal ones this is the published merge.
        thresholds: Least magnitude that is kept, `[E]`.

    Returns:
        The merged delta, `[out, in]`; 0 where no expert with weight has kept anything.

    Raises:
        ShapeError: If there is not one weight and threshold for each expert, or a weight is negative.

    Source:
        Yadav et al. 2023, TIES-Merging: resolving interference when merging models, algorithm 1.

    Example:
        >>> deltas = torch.tensor([[[3.0, 1.0]], [[-2.0, 5.0]]])
        >>> merge_signs(deltas, torch.tensor([0.5, 0.5]), torch.tensor([2.0, 2.0]))
        tensor([[3., 5.]])
    """
    if weights.shape != deltas.shape[:1] or thresholds.shape != deltas.shape[:1] or bool((weights < 0).any()):
        raise ShapeError(
            f"weights must be non-negative, one with a threshold for each of {len(deltas)} deltas, got "
            f"{weights.tolist()} with {len(thresholds)} thresholds. Signs of experts that are subtracted say nothing."
        )
    trimmed = torch.where(deltas.abs() >= thresholds[:, None, None], deltas, 0.0)
    weighed = trimmed * weights[:, None, None]
    elected = torch.where(weighed.sum(dim=0) >= 0, 1.0, -1.0)
    agree = (weighed.sign() == elected).to(deltas.dtype)  # what is 0, trimmed or without weight, has no sign
    counts = (agree * weights[:, None, None]).sum(dim=0)
    return torch.where(counts > 0, (weighed * agree).sum(dim=0) / counts.clamp(min=torch.finfo(counts.dtype).tiny), 0.0)
