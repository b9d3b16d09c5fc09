"""Streams: the same rows once under each expert, and under the base model where it has a part, as one batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from paretune.models.mixing import WHOLE, Mixing


class Streams:
    """Which streams the rows of a mixing need, in the order of their blocks of rows: experts, then the base model.

    An expert that no row weighs has no stream, so that a batch of one expert's rows costs what it costs alone.

    Attributes:
        members: Experts with a stream.
        reference: Whether the base model has one.
    """

    def __init__(self, mixing: Mixing) -> None:
        weights, rest = mixing.dense(), _rest(mixing)
        self.experts = mixing.experts
        self.members = tuple(int(expert) for expert in (weights != 0).any(dim=0).nonzero().flatten())
        wanted = mixing.divergence != "reverse_kl"  # there the experts are seen beside the base model
        self.reference = wanted or bool((rest != 0).any()) or not self.members
        self._mixings: dict[int, Mixing] = {}

    def __len__(self) -> int:
        return len(self.members) + self.reference

    def weights(self, mixing: Mixing) -> Tensor:
        """Return what each stream of some rows counts, `[N, S]`."""
        dense = mixing.dense()
        chosen = dense[:, list(self.members)]
        return torch.cat([chosen, _rest(mixing)[:, None]], dim=1) if self.reference else chosen

    def mixing(self, rows: int) -> Mixing:
        """Return the mixing of `[S, N]` rows, one block a stream."""
        if rows not in self._mixings:  # decoding asks at every token, and a bank keeps what it made for the last mixing
            self._mixings[rows] = self._make(rows)
        return self._mixings[rows]

    def _make(self, rows: int) -> Mixing:
        if not self.members:
            return Mixing.reference(rows)
        if not self.reference:
            every = self.members == tuple(range(self.experts))
            return Mixing.population(self.experts, rows, None if every else self.members)
        one_hot = torch.eye(self.experts)[list(self.members)]
        return Mixing.of_rows(torch.cat([one_hot, torch.zeros(1, self.experts)]).repeat_interleave(rows, dim=0))

    def spread(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the model's arguments with every tensor `[N, ...]` once for each stream, `[S N, ...]`."""
        return {name: self._repeated(value) for name, value in arguments.items()}

    def _repeated(self, value: Any) -> Any:
        return value.repeat(len(self), *[1] * (value.ndim - 1)) if isinstance(value, Tensor) else value

    def cache_rows(self, index: Tensor, rows: int) -> Tensor:
        """Return which of `[S, rows]` rows belong to the rows `index`."""
        starts = torch.arange(len(self), device=index.device)[:, None] * rows
        return (starts + index).flatten()


def _rest(mixing: Mixing) -> Tensor:
    """Return what is left to the base model in each row, `[N]`.

    Of log-probabilities and of probabilities it is what experts leave of one. Hidden states are mixed as they are
    weighed; there it is what a scale takes from the experts.
    """
    dense = mixing.dense()
    if mixing.level == "hidden":
        return dense.new_zeros(mixing.batch) if mixing.scale is None else 1 - mixing.scale.to(dense)
    rest = 1 - dense.sum(dim=1)
    return torch.where(rest.abs() <= WHOLE, 0.0, rest)
