"""How much of each expert every row of a batch gets."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from paretune.core.errors import MixingError, ShapeError


@dataclass(frozen=True, eq=False)
class Mixing:
    """Expert weights for the rows of one batch, at the level of adapter deltas.

    The rule `y = W x + sum_e g_e s_e B_e A_e x` needs `g`, one weight per row and expert. Three layouts give it:
    any weights for each row; a *population*, where row `e * rows_each + n` belongs wholly to expert `e`
    (adapter-major, `[E, N]`); and the reference policy, `g = 0`, which is the base model exactly.

    Attributes:
        expert_weights: `[B, E]`; None for a population and for the reference policy.
        experts: Number of experts E; 0 for the reference policy.
        rows_each: Rows of each expert in a population, else 0.
        batch: Number of rows B.
        members: Which experts of the bank a population is made of, in order; None for all.
    """

    batch: int
    experts: int
    expert_weights: Tensor | None = None
    rows_each: int = 0
    members: tuple[int, ...] | None = None

    @classmethod
    def of_rows(cls, expert_weights: Tensor) -> Mixing:
        """Weigh experts freely for each row, `[B, E]`.

        Raises:
            ShapeError: If the weights do not have two dimensions or are not finite.
        """
        if expert_weights.ndim != 2:
            raise ShapeError(f"expert_weights must be [B, E], got shape {list(expert_weights.shape)}.")
        if not bool(torch.isfinite(expert_weights).all()):
            raise ShapeError("expert_weights must be finite, got NaN or infinity. Check the rule that made them.")
        return cls(batch=expert_weights.shape[0], experts=expert_weights.shape[1], expert_weights=expert_weights)

    @classmethod
    def population(cls, experts: int, rows_each: int, members: tuple[int, ...] | None = None) -> Mixing:
        """Give each of E experts its own block of rows, adapter-major.

        Args:
            experts: Number of experts E of the bank.
            rows_each: Rows of each member.
            members: The experts that take part, in order; by default all.

        Raises:
            ShapeError: If a member is not an expert of the bank, or takes part twice.
        """
        if members is not None and (len({*members}) != len(members) or not {*members} <= {*range(experts)}):
            raise ShapeError(f"members must be different experts in 0..{experts - 1}, got {list(members)}.")
        count = experts if members is None else len(members)
        return cls(batch=count * rows_each, experts=experts, rows_each=rows_each, members=members)

    @classmethod
    def reference(cls, batch: int) -> Mixing:
        """Use no expert: the base model exactly."""
        return cls(batch=batch, experts=0)

    @property
    def is_reference(self) -> bool:
        """Whether no row uses any expert."""
        return self.experts == 0

    @property
    def is_population(self) -> bool:
        """Whether rows are adapter-major blocks."""
        return self.rows_each > 0

    def at(self, block: int, hidden: Tensor) -> Tensor:
        """Return g for the input of a block, `[B, E]`; the same for every block and token at this level.

        Args:
            block: Index of the transformer block.
            hidden: The block's own input `[B, T, H]`, which gates read.

        Raises:
            MixingError: If the rows of `hidden` are not the rows of this mixing.
        """
        del block
        if hidden.shape[0] != self.batch:
            raise MixingError(f"hidden must have the {self.batch} rows of its mixing, got {hidden.shape[0]}.")
        return self.dense(hidden.dtype).to(hidden.device)

    def dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the weights written out, `[B, E]`."""
        if self.expert_weights is not None:
            return self.expert_weights.to(dtype)
        members = list(range(self.experts)) if self.members is None else list(self.members)
        return torch.eye(self.experts, dtype=dtype)[members].repeat_interleave(self.rows_each, dim=0)

    @property
    def blocks(self) -> int:
        """Number of blocks of rows in a population."""
        return self.batch // self.rows_each

    def rows(self, index: Tensor) -> Mixing:
        """Return the mixing of some rows, in the order of `index` `[B']`.

        A population stays one when every expert keeps equally many rows, in adapter-major order.
        """
        if self.is_reference:
            return replace(self, batch=len(index))
        if self.expert_weights is not None:
            return Mixing.of_rows(self.expert_weights[index.to(self.expert_weights.device)])
        owner = index.cpu() // self.rows_each
        each, left = divmod(len(index), self.blocks)
        if not left and bool((owner == torch.arange(self.blocks).repeat_interleave(each)).all()):
            return Mixing.population(self.experts, each, self.members)
        return Mixing.of_rows(self.dense()[index.cpu()])

    def keep(self, alive: Tensor) -> Tensor:
        """Return the rows to keep so that all `alive` `[B]` rows stay and the layout is preserved, `[B']`.

        In a population every expert keeps as many rows as the one with most alive; finished rows fill up the others.
        """
        if not self.is_population:
            return alive.nonzero().flatten()
        blocks = alive.view(self.blocks, self.rows_each)
        most = max(1, int(blocks.sum(dim=1).max()))
        order = blocks.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most].sort(dim=1).values
        starts = torch.arange(self.blocks, device=alive.device)[:, None] * self.rows_each
        return (order + starts).flatten()

    def group_keys(self) -> list[bytes]:
        """Return one key per row; rows of equal key use the experts equally."""
        if self.is_reference:
            return [b""] * self.batch
        if self.expert_weights is None:
            return [str(row // self.rows_each).encode() for row in range(self.batch)]
        weights = self.expert_weights.detach().float().cpu().numpy()
        return [row.tobytes() for row in weights]
