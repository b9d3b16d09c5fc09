"""Rows of a tensor copied for others to read, with gradients that come back without a detour."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def copies(rows: Tensor, index: Tensor) -> Tensor:
    """Return `rows[index]`, `[D, ...]` to `[B, ...]`, with the gradient of each row the sum over its copies.

    On a processor, adding up gradients that do not lie side by side, as those of a part of a joined tensor, takes torch
    ten times as long as making them lie so. On a GPU sums in any order would not be the same twice; there torch sorts.

    Example:
        >>> copies(torch.tensor([[1.0], [2.0]]), torch.tensor([1, 0, 1])).tolist()
        [[2.0], [1.0], [2.0]]
    """
    if rows.device.type != "cpu":
        return rows[index]
    made: Tensor = _Copies.apply(rows, index)
    return made


class _Copies(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape = rows.shape
        return rows.index_select(0, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return gradient.new_zeros(ctx.shape).index_add_(0, index, gradient.contiguous()), None
