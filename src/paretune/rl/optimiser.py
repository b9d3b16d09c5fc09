"""AdamW on the rows of one matrix: each expert has its own state and may take its own number of steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(eq=False)
class RowAdamW:
    """Adam with decoupled weight decay, one independent optimiser per row of `[E, P]`.

    `torch.optim.AdamW` keeps one step count for a tensor; members of a population that leave it, or take an extra
    step on a copy, need one each. A test holds it equal to `torch.optim.AdamW`.

    Attributes:
        mean: First moments `[E, P]`.
        square: Second moments `[E, P]`.
        steps: Steps taken by each row `[E]`.

    Source:
        Kingma and Ba 2015; Loshchilov and Hutter 2019.
    """

    mean: Tensor
    square: Tensor
    steps: Tensor
    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    @classmethod
    def like(
        cls, parameters: Tensor, learning_rate: float, betas: tuple[float, float], weight_decay: float
    ) -> RowAdamW:
        """Start with empty moments for parameters `[E, P]`."""
        rows = torch.zeros(len(parameters), device=parameters.device, dtype=torch.float64)
        return cls(
            torch.zeros_like(parameters), torch.zeros_like(parameters), rows, learning_rate, betas,
            weight_decay=weight_decay,
        )  # fmt: skip

    @torch.no_grad()
    def step(self, parameters: Tensor, gradient: Tensor, rows: Sequence[int], warmup_steps: int = 0) -> None:
        """Update some rows of `parameters` `[E, P]` in place with their gradients `[len(rows), P]`.

        Args:
            parameters: All rows.
            gradient: Gradients of the rows to update, in their order.
            rows: Which rows.
            warmup_steps: Steps over which each row's learning rate rises linearly to its full value.
        """
        index = torch.tensor(list(rows), device=parameters.device)
        first, second = self.betas
        self.steps[index] += 1
        steps = self.steps[index]
        mean = self.mean[index].mul_(first).add_(gradient, alpha=1 - first)
        square = self.square[index].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        self.mean[index], self.square[index] = mean, square
        rate = self.learning_rate * (steps / max(warmup_steps, 1)).clamp(max=1.0)
        step_size = (rate / (1 - first**steps)).to(gradient.dtype)[:, None]
        correction = (1 - second**steps).sqrt().to(gradient.dtype)[:, None]
        old = parameters[index]
        if self.weight_decay:
            old = old * (1 - rate * self.weight_decay).to(gradient.dtype)[:, None]
        parameters[index] = old - step_size * mean / (square.sqrt() / correction + self.epsilon)

    def copy(self) -> RowAdamW:
        """Return an independent copy, for a step that must not count."""
        return RowAdamW(
            self.mean.clone(), self.square.clone(), self.steps.clone(), self.learning_rate, self.betas, self.epsilon,
            self.weight_decay,
        )  # fmt: skip


def clip_rows(gradient: Tensor, max_norm: float) -> Tensor:
    """Scale each row of `[E, P]` down to at most `max_norm`; one expert's gradient never shrinks another's."""
    norms: Tensor = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
    return gradient * (max_norm / norms.clamp(min=max_norm))
