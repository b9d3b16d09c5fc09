"""The completions that one optimiser step reads: those of an update, and behind each member's own some earlier ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paretune.models.mixing import Mixing
from paretune.rl.rollout import Batch

Rows = slice | Tensor


@dataclass(frozen=True, eq=False)
class Pass:
    """Rows that are read at once, equally many of every member.

    Attributes:
        prompt_ids: Token ids of each row's prompt.
        token_ids: Of its completion `[B', T]`, right-padded.
        lengths: Tokens of each completion `[B']`.
        mixing: Of the rows; a gate of rows is still to be asked.
        own: Which completions of the update are among them.
        own_at: Their rows in the pass.
        again: Which earlier completions are; empty where none is.
        again_at: Their rows in the pass.
    """

    prompt_ids: Sequence[Sequence[int]]
    token_ids: Tensor
    lengths: Tensor
    mixing: Mixing
    own: Rows
    own_at: Rows
    again: Tensor
    again_at: Tensor

    @property
    def has_own(self) -> bool:
        """Whether completions of the update are among them."""
        return isinstance(self.own, slice) or len(self.own) > 0


@dataclass(frozen=True, eq=False)
class StepRows:
    """All rows of a step: of each member the `own` of the update, then `again` earlier ones.

    Attributes:
        prompt_ids: As in `Pass`.
        token_ids: As in `Pass`.
        lengths: As in `Pass`.
        mixing: As in `Pass`.
        members: How many members they are of.
        own: Completions of the update, of each member.
        again: Earlier completions, of each member.
    """

    prompt_ids: Sequence[Sequence[int]]
    token_ids: Tensor
    lengths: Tensor
    mixing: Mixing
    members: int
    own: int
    again: int = 0

    @classmethod
    def of(cls, batch: Batch, mixing: Mixing, members: int) -> StepRows:
        """Return the completions of an update alone."""
        size = len(batch.prompt_ids) // members
        return cls(batch.prompt_ids, batch.token_ids, batch.lengths, mixing, members, size)

    @property
    def each(self) -> int:
        """Completions of each member."""
        return self.own + self.again

    def passes(self, micro: int = 0) -> Iterator[Pass]:
        """Yield what is read at once: at most `micro` completions of each member, 0: all."""
        if not self.again and (not micro or micro >= self.own):
            nothing, every = torch.zeros(0, dtype=torch.int64), slice(None)
            yield Pass(self.prompt_ids, self.token_ids, self.lengths, self.mixing, every, every, nothing, nothing)
            return
        starts = torch.arange(self.members)[:, None]
        for places in torch.arange(self.each).split(micro or self.each):
            rows = (starts * self.each + places).flatten()
            earlier = (places >= self.own).repeat(self.members)
            own, again = places[places < self.own], places[places >= self.own] - self.own
            here = rows.to(self.token_ids.device)
            yield Pass(
                [self.prompt_ids[row] for row in rows.tolist()], self.token_ids[here], self.lengths[here],
                self.mixing.rows(rows), (starts * self.own + own).flatten(), (~earlier).nonzero().flatten(),
                (starts * self.again + again).flatten(), earlier.nonzero().flatten(),
            )  # fmt: skip
