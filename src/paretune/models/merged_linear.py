"""Products with `W + s_e B_e A_e`, one matrix for each expert, with exact gradients of its factors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from paretune.models.capture import Capture


def merged_linear(
    x: Tensor, merged: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, capture: Capture | None, number: int
) -> Tensor:
    """Return `x (W + down up)`, where the sum was made before: one product there and one back for each expert.

    Beside a frozen product, low-rank ones cost more than their operations: each reads and writes all rows again.

    Args:
        x: Rows of E experts, `[E, N, in]`.
        merged: `(W + down up)'` of each, `[E, out, in]`; gradients flow to the factors instead.
        bias: Frozen, `[out]`.
        down: First factors `[E, in, r]`.
        up: Second factors, with their scales, `[E, r, out]`.
        capture: Takes what would be the factors' gradients.
        number: Place of the layer in the bank, for the capture.

    Returns:
        `[E, N, out]`.
    """
    made: Tensor = _MergedLinear.apply(x, merged, bias, down, up, capture, number)
    return made


class _MergedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, merged: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, capture: Capture | None,
        number: int,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(x, merged, down, up)
        ctx.capture, ctx.number = capture, number
        return torch.bmm(x, merged.mT) if bias is None else torch.baddbmm(bias, x, merged.mT)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, merged, down, up = ctx.saved_tensors
        x_gradient = torch.bmm(gradient, merged) if ctx.needs_input_grad[0] else None
        # few rows and many columns: such products take a fifth of the time of their transposes
        z, z_gradient = torch.bmm(down.mT, x.mT), torch.bmm(up, gradient.mT)  # [E, r, N]
        if ctx.capture is not None:
            ctx.capture.add(ctx.number, x, z.mT.contiguous(), z_gradient.mT.contiguous(), gradient)
            return x_gradient, None, None, None, None, None, None
        return x_gradient, None, None, torch.bmm(z_gradient, x).mT, torch.bmm(z, gradient), None, None
