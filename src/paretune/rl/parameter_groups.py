"""The optimisers of a trainee: one for each named group of parameters, saved and handed over by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from paretune.core.errors import NonFiniteError
from paretune.rl.row_adamw import RowAdamW, clip_rows
from paretune.rl.settings import LearnerSettings
from paretune.rl.trainees import Trainee

BETAS = (0.9, 0.99)  # 0.999 remembers a thousand updates, more than a short run has


class ParameterGroups:
    """Steps over all groups of a trainee's parameters, with one gradient norm over them.

    Attributes:
        optimisers: Name -> its optimiser.
    """

    def __init__(self, trainee: Trainee, settings: LearnerSettings, objectives: int = 0) -> None:
        """Start with empty moments; with `objectives`, those of each objective's gradient are kept apart."""
        self.parameters, self.settings = trainee.parameters, settings
        self.optimisers = {
            name: RowAdamW.like(
                parameters, trainee.learning_rates.get(name, settings.learning_rate), BETAS, settings.weight_decay,
                settings.average_decay, objectives,
            )
            for name, parameters in trainee.parameters.items()
        }  # fmt: skip

    def step(self, gradients: Mapping[str, Tensor], rows: Sequence[int], moving: Sequence[bool]) -> list[float]:
        """Take one step of the members that move and return the gradient norms of all.

        Args:
            gradients: Name -> `[len(rows), P]`.
            rows: Which members.
            moving: Whether each of them has anything to learn from.

        Raises:
            NonFiniteError: If a gradient is not finite.
        """
        whole = torch.cat(list(gradients.values()), dim=1)
        check_finite(whole)
        norms: list[float] = whole.norm(dim=1).tolist()
        taken = [place for place, moves in enumerate(moving) if moves]
        if taken:
            clipped = clip_rows(whole, self.settings.max_grad_norm)
            start = 0
            for name, gradient in gradients.items():
                own = clipped[:, start : start + gradient.shape[1]]
                start += gradient.shape[1]
                if len(taken) < len(rows):
                    own = own[taken]
                members = [rows[place] for place in taken]
                self.optimisers[name].step(self.parameters[name], own, members, self.settings.warmup_steps)
        return norms

    @contextmanager
    def averaged(self, member: int) -> Iterator[None]:
        """Put the average of a member's parameters in their place while it is handed over."""
        before = {}
        with torch.no_grad():
            for name, optimiser in self.optimisers.items():
                if optimiser.average is not None:
                    before[name] = self.parameters[name][member].clone()
                    self.parameters[name][member] = optimiser.average[member]
        try:
            yield
        finally:
            with torch.no_grad():
                for name, row in before.items():
                    self.parameters[name][member] = row

    def state(self) -> dict[str, Tensor]:
        """Return parameters and moments of all members, as `<group>.<tensor>`."""
        return {
            f"{name}.{part}": tensor
            for name, optimiser in self.optimisers.items()
            for part, tensor in {"parameters": self.parameters[name], **optimiser.state()}.items()
        }

    def row_state(self, member: int) -> dict[str, Tensor]:
        """Return a copy of one member's parameters and moments."""
        return {
            f"{name}.{part}": tensor
            for name, optimiser in self.optimisers.items()
            for part, tensor in {
                "parameters": self.parameters[name][member].clone(),
                **optimiser.row_state(member),
            }.items()
        }

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over `state()`."""
        for name, optimiser in self.optimisers.items():
            self.parameters[name].copy_(state[f"{name}.parameters"])
            optimiser.load(_part(state, name))

    @torch.no_grad()
    def load_row(self, member: int, state: Mapping[str, Tensor]) -> None:
        """Take over the `row_state` of a member."""
        for name, optimiser in self.optimisers.items():
            self.parameters[name][member] = state[f"{name}.parameters"].to(self.parameters[name].device)
            optimiser.load_row(member, _part(state, name))


def check_finite(gradient: Tensor) -> None:
    """Refuse a gradient with NaN or infinity.

    Raises:
        NonFiniteError: If there is one.
    """
    if not bool(torch.isfinite(gradient).all()):
        raise NonFiniteError("gradients must be finite, got NaN or infinity. Lower the learning rate.")


def _part(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): tensor for key, tensor in state.items() if key.startswith(f"{name}.")}
