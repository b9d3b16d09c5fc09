"""Rows of tokens as the model's inputs: padding, positions, masks, and which rows share a prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from paretune.models.base import BaseModel


def left_pad(base: BaseModel, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return prompt ids `[B, P]` and which of them are real."""
    longest = max(len(prompt) for prompt in prompts)
    pad = base.pad_id
    ids = torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts], dtype=torch.int64)
    padding = torch.tensor([longest - len(prompt) for prompt in prompts])
    real = torch.arange(longest) >= padding[:, None]
    return ids.to(base.device), real.to(base.device)


def distinct(prompts: Sequence[Sequence[int]], keys: Sequence[bytes]) -> tuple[list[int], list[int]]:
    """Return the first row of each distinct prompt and key, and for each row which of them it has.

    Example:
        >>> distinct([[1], [1, 2], [1]], [b"", b"", b""])
        ([0, 1], [0, 1, 0])
    """
    seen: dict[tuple[bytes, tuple[int, ...]], int] = {}
    first: list[int] = []
    owner: list[int] = []
    for row, (prompt, key) in enumerate(zip(prompts, keys, strict=True)):
        identity = (key, tuple(prompt))
        if identity not in seen:
            seen[identity] = len(first)
            first.append(row)
        owner.append(seen[identity])
    return first, owner


def positions_of(real: Tensor) -> Tensor:
    """Return the position of each token `[B, S]`, counted over real ones."""
    return (real.cumsum(dim=1) - 1).clamp(min=0)


def causal(real: Tensor, queries: int) -> Tensor:
    """Return the mask `[B, 1, Q, S]` of the last `queries` positions: earlier real tokens and the position itself."""
    size = real.shape[1]
    position = torch.arange(size, device=real.device)
    query = position[size - queries :]
    before = position[None, :] <= query[:, None]
    itself = position[None, :] == query[:, None]  # a padded position sees itself: a softmax over nothing is NaN
    return ((before[None] & real[:, None, :]) | itself[None])[:, None]
