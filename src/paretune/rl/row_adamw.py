"""AdamW on the rows of one matrix: each trainee has its own state and may take its own number of steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from paretune.core.errors import ShapeError


@dataclass(eq=False)
class RowAdamW:
    """Adam with decoupled weight decay, one independent optimiser per row of `[E, P]`, and an average of each row.

    `torch.optim.AdamW` keeps one step count for a tensor; members of a population that leave it, or take an extra
    step on a copy, need one each. A test holds it equal to `torch.optim.AdamW`.

    Attributes:
        mean: First moments `[E, P]`.
        square: Second moments `[E, P]`.
        steps: Steps taken by each row `[E]`.
        average: Average of the parameters after each step `[E, P]`; None where it is not wanted.
        objective_means: First moments of each objective's gradient `[K, E, P]`, for weights that are chosen from them;
            of no objective where the gradient comes as one.
        average_decay: Of the average, once many steps are taken: `min(average_decay, (s + 1) / (s + 10))` at step s.

    Source:
        Kingma and Ba 2015; Loshchilov and Hutter 2019; Polyak and Juditsky 1992 for the average.
    """

    mean: Tensor
    square: Tensor
    steps: Tensor
    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    average: Tensor | None = None
    average_decay: float = 0.0
    objective_means: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 0))

    @classmethod
    def like(
        cls,
        parameters: Tensor,
        learning_rate: float,
        betas: tuple[float, float],
        weight_decay: float,
        average_decay: float = 0.0,
        objectives: int = 0,
    ) -> RowAdamW:
        """Start with empty moments for parameters `[E, P]`; with `objectives`, keep the moments of each gradient."""
        return cls(
            torch.zeros_like(parameters),
            torch.zeros_like(parameters),
            torch.zeros(len(parameters), device=parameters.device, dtype=torch.float64),
            learning_rate,
            betas,
            weight_decay=weight_decay,
            average=parameters.detach().clone() if average_decay else None,
            average_decay=average_decay,
            objective_means=parameters.new_zeros(objectives, *parameters.shape),
        )

    @torch.no_grad()
    def step(self, parameters: Tensor, gradient: Tensor, rows: Sequence[int], warmup_steps: int = 0) -> Tensor:
        """Update some rows of `parameters` `[E, P]` in place with their gradients `[len(rows), P]`.

        Args:
            parameters: All rows.
            gradient: Gradients of the rows to update, in their order.
            rows: Which rows.
            warmup_steps: Steps over which each row's learning rate rises linearly to its full value.

        Returns:
            What the rows were moved against, up to the learning rate and without decay, `[len(rows), P]`.
        """
        index = self._places(rows)
        first, second = self.betas
        self.steps[index] += 1
        steps = self.steps[index]
        mean = self.mean[index].mul_(first).add_(gradient, alpha=1 - first)
        square = self.square[index].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        self.mean[index], self.square[index] = mean, square
        step_size = (self._rate(steps, warmup_steps) / (1 - first**steps)).to(gradient.dtype)[:, None]
        correction = (1 - second**steps).sqrt().to(gradient.dtype)[:, None]
        old = self._decayed(parameters[index], steps, warmup_steps)
        direction = mean / (square.sqrt() / correction + self.epsilon)
        parameters[index] = old - step_size * direction
        self._take_average(parameters, index)
        return direction

    @torch.no_grad()
    def begin(self, rows: Sequence[int]) -> None:
        """Begin a step of some rows that keeps no moments; `apply` finishes it."""
        self.steps[self._places(rows)] += 1

    @torch.no_grad()
    def observe(self, gradients: Tensor, combined: Tensor, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Take in the gradient of each objective, before it is known how they will be weighed; begins a step.

        The second moments take in `combined`, so that the metric is known before the weights, and a direction that
        all smoothed gradients agree with is one for the applied step too. With `combined` their sum under constant
        weights, `apply` with those weights is a step of Adam.

        Args:
            gradients: Of each objective, for the rows to update, `[K, len(rows), P]`.
            combined: Their sum under the preference, `[len(rows), P]`.
            rows: Which rows.

        Returns:
            Smoothed gradients without their bias towards 0, `[K, len(rows), P]`, and the diagonal of the metric,
            `1 / (sqrt(v) + epsilon)`, `[len(rows), P]`.

        Raises:
            ShapeError: If they are not of as many objectives as it was made for.
        """
        if len(gradients) != len(self.objective_means):
            raise ShapeError(
                f"gradients must be of the {len(self.objective_means)} objectives that the optimiser was made for, got "
                f"{len(gradients)}. Make it with objectives={len(gradients)}."
            )
        index = self._places(rows)
        first, second = self.betas
        self.steps[index] += 1
        steps = self.steps[index]
        means = self.objective_means[:, index].mul_(first).add_(gradients, alpha=1 - first)
        square = self.square[index].mul_(second).addcmul_(combined, combined, value=1 - second)
        self.objective_means[:, index], self.square[index] = means, square
        correction = (1 - second**steps).sqrt().to(combined.dtype)[:, None]
        unbiased = means / (1 - first**steps).to(combined.dtype)[None, :, None]
        return unbiased, 1 / (square.sqrt() / correction + self.epsilon)

    @torch.no_grad()
    def apply(
        self, parameters: Tensor, direction: Tensor, diagonal: Tensor, rows: Sequence[int], warmup_steps: int = 0
    ) -> None:
        """Finish the step of `observe` or `begin`: move rows against `direction` `[len(rows), P]` in the metric."""
        index = self._places(rows)
        steps = self.steps[index]
        rate = self._rate(steps, warmup_steps).to(direction.dtype)[:, None]
        parameters[index] = self._decayed(parameters[index], steps, warmup_steps) - rate * diagonal * direction
        self._take_average(parameters, index)

    def _places(self, rows: Sequence[int]) -> Tensor | slice:
        """Return an index of some rows; of all of them one that copies nothing."""
        if list(rows) == list(range(len(self.steps))):
            return slice(None)
        return torch.tensor(list(rows), device=self.steps.device)

    def _rate(self, steps: Tensor, warmup_steps: int) -> Tensor:
        return self.learning_rate * (steps / max(warmup_steps, 1)).clamp(max=1.0)

    def _decayed(self, old: Tensor, steps: Tensor, warmup_steps: int) -> Tensor:
        if not self.weight_decay:
            return old
        return old * (1 - self._rate(steps, warmup_steps) * self.weight_decay).to(old.dtype)[:, None]

    def _take_average(self, parameters: Tensor, index: Tensor | slice) -> None:
        if self.average is None:
            return
        steps = self.steps[index]
        decay = ((steps + 1) / (steps + 10)).clamp(max=self.average_decay).to(parameters.dtype)[:, None]
        self.average[index] = decay * self.average[index] + (1 - decay) * parameters[index]

    def state(self) -> dict[str, Tensor]:
        """Return all tensors, rows of experts along the last dimension but one (`steps` along its only one)."""
        named = {"mean": self.mean, "square": self.square, "steps": self.steps}
        if self.average is not None:
            named["average"] = self.average
        if len(self.objective_means):
            named["objective_means"] = self.objective_means
        return named

    def row_state(self, row: int) -> dict[str, Tensor]:
        """Return a copy of one row's tensors."""
        return {name: tensor.select(_row_dimension(name), row).clone() for name, tensor in self.state().items()}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over `state()`, in place."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])

    @torch.no_grad()
    def load_row(self, row: int, state: Mapping[str, Tensor]) -> None:
        """Take over another optimiser's `row_state`."""
        for name, tensor in self.state().items():
            tensor.select(_row_dimension(name), row).copy_(state[name])


def _row_dimension(name: str) -> int:
    return 1 if name == "objective_means" else 0


def clip_rows(gradient: Tensor, max_norm: float) -> Tensor:
    """Scale each row of `[E, P]` down to at most `max_norm`; one expert's gradient never shrinks another's."""
    norms: Tensor = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
    return gradient * (max_norm / norms.clamp(min=max_norm))
