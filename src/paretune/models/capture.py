"""Gradients of several objectives from one backward pass, where each weighs whole completions.

Rows do not interact in a pass, so the gradient of `sum_b c_bk l_b` is `sum_b c_bk` times that of `l_b`: one backward
pass of `sum_b l_b` holds all of them, until a layer adds up its rows. For `y = x W` with input x `[B, T, in]` and
output gradient d `[B, T, out]` of `sum_b l_b`, objective k's gradient is `sum_b c_bk sum_t x_bt d_bt'`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from paretune.core.errors import MixingError, ShapeError
from paretune.models.mixing import Mixing


def check_weighable(mixing: Mixing, coefficients: Tensor) -> None:
    """Refuse rows whose gradients one backward pass cannot tell apart.

    Args:
        mixing: Of the rows; must be a population.
        coefficients: `[B, K]`.

    Raises:
        MixingError: If the mixing is no population.
        ShapeError: If there is not one row of coefficients for each row of the mixing.
    """
    if not mixing.is_population:
        raise MixingError(
            "a captured mixing must be a population, whose rows belong to one expert each, got other rows. Run a "
            "backward pass for each objective instead."
        )
    if coefficients.ndim != 2 or len(coefficients) != mixing.batch or not coefficients.shape[1]:
        raise ShapeError(
            f"coefficients must be [B, K], one row for each of the {mixing.batch} rows of the mixing, got "
            f"{list(coefficients.shape)}. Weigh every completion."
        )


class Capture:
    """What backward passes under `ExpertBank.capturing` have added up.

    Attributes:
        objectives: Number of objectives K.
    """

    def __init__(
        self, mixing: Mixing, coefficients: Tensor, scales: Tensor, shapes: Sequence[tuple[int, int]], rank: int
    ) -> None:
        """Start from zero.

        Args:
            mixing: The population whose rows will be seen.
            coefficients: `[B, K]`.
            scales: `s_e` of all experts, `[E]`.
            shapes: Input and output size of each layer, in the bank's order.
            rank: Rank r of every expert.
        """
        check_weighable(mixing, coefficients)
        self.objectives = coefficients.shape[1]
        self._mixing, self._rank = mixing, rank
        members = list(range(mixing.experts)) if mixing.members is None else list(mixing.members)
        self._scales = scales[members]
        self._coefficients = coefficients.detach().float().view(mixing.blocks, mixing.rows_each, 1, self.objectives, 1)
        self._starts = [0]
        for inputs, outputs in shapes:
            self._starts.append(self._starts[-1] + rank * (inputs + outputs))
        self._total = torch.zeros(self.objectives, mixing.blocks, self._starts[-1], device=coefficients.device)
        self._seen = 0

    @property
    def gradients(self) -> Tensor:
        """Gradients of the K objectives in the parameters of each member, in its place in the population, `[K, M, P]`.

        Raises:
            MixingError: If there has been no backward pass.
        """
        if not self._seen:
            raise MixingError(
                "captured gradients must be read after a backward pass, got none. Run forward and backward inside "
                "`with bank.capturing(mixing, coefficients):`."
            )
        return self._total

    def check(self, mixing: Mixing) -> None:
        """Refuse a pass whose rows are not those of the coefficients.

        Args:
            mixing: What the pass runs under.

        Raises:
            MixingError: If that is not the captured mixing.
        """
        if mixing is not self._mixing:
            raise MixingError(
                f"a captured pass must see all {self._mixing.batch} rows of its mixing at once, in their order, got a "
                f"pass over {mixing.batch} rows under another mixing. Score with share_prompts=False: a prompt that is "
                "read once for several completions has no coefficient of its own."
            )

    def add_delta(self, number: int, rows: Tensor, x: Tensor, down: Tensor, up: Tensor) -> Tensor:
        """Return `rows + x down up`, whose backward pass adds to the capture and gives the factors no gradients.

        Args:
            number: Place of the layer in the bank.
            rows: Output of the frozen layer, `[M, N T, out]`: N rows of T tokens for each member.
            x: Its input `[M, N T, in]`.
            down: First factors `[M, in, r]`.
            up: Second factors, with their scales, `[M, r, out]`.
        """
        out: Tensor = _CapturedDelta.apply(rows, x, down, up, self, number)
        return out

    def add(self, number: int, x: Tensor, z: Tensor, z_gradient: Tensor, y_gradient: Tensor) -> None:
        """Add one layer's share of the gradients.

        Args:
            number: Place of the layer in the bank.
            x: Its inputs `[M, N T, in]`.
            z: Inputs of its second factors `[M, N T, r]`.
            z_gradient: Gradient of the summed rows in `z`, `[M, N T, r]`.
            y_gradient: Gradient of the summed rows in its output, `[M, N T, out]`.
        """
        start, blocks = self._starts[number], len(x)
        middle, end = start + self._rank * x.shape[2], self._starts[number + 1]
        down = torch.bmm(self._weighed(z_gradient).mT, x)  # [M, K r, in], as A is laid out
        self._total[:, :, start:middle] += down.view(blocks, self.objectives, -1).transpose(0, 1)
        up = torch.bmm(self._weighed(z).mT, y_gradient)  # [M, K r, out]
        up = up.view(blocks, self.objectives, self._rank, -1).permute(1, 0, 3, 2)  # B is [out, r]
        # the scale sits in the layer's second factor, of which this is the gradient
        self._total[:, :, middle:end] += up.flatten(2) * self._scales[:, None]
        self._seen += 1

    def _weighed(self, values: Tensor) -> Tensor:
        """Return `[M, N T, r]` once for each objective, rows multiplied by their coefficients: `[M, N T, K r]`."""
        blocks, count, rank = values.shape
        rows = values.view(blocks, self._mixing.rows_each, -1, 1, rank)
        return (rows * self._coefficients).to(values.dtype).view(blocks, count, self.objectives * rank)


class _CapturedDelta(torch.autograd.Function):
    """Saves tensors as autograd does, so that gradient checkpointing drops them and recomputes them."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, x: Tensor, down: Tensor, up: Tensor, capture: Capture, number: int) -> Tensor:
        z = torch.bmm(x, down)
        ctx.save_for_backward(x, z, down, up)
        ctx.capture, ctx.number = capture, number
        return torch.baddbmm(rows, z, up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, z, down, up = ctx.saved_tensors
        dtype = z.dtype  # under autocast, z is of the type that the forward pass computed in, others may not be
        gradient = gradient.to(dtype)
        z_gradient = torch.bmm(gradient, up.to(dtype).mT)
        ctx.capture.add(ctx.number, x.to(dtype), z, z_gradient, gradient)
        x_gradient = torch.bmm(z_gradient, down.to(dtype).mT) if ctx.needs_input_grad[1] else None
        return gradient if ctx.needs_input_grad[0] else None, x_gradient, None, None, None, None
