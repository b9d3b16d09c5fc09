"""How much of each expert every row of a batch gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from paretune.core.errors import MixingError, NonFiniteError, ShapeError
from paretune.core.protocols import Continued, Divergence, Level, Norm
from paretune.core.user_calls import shown as described
from paretune.models.gate_protocols import Gate, Listener, RowGate

WHOLE = 1e-6  # by which weights that sum to one in fp32 may miss it
GateFrom = int | Sequence[int]  # first token of a pass that a gate weighs: one for all rows, or one for each


@dataclass(frozen=True, eq=False)
class Mixing:
    """Expert weights for the rows of one batch, and the level at which they mix.

    The rule `y = W x + sum_e g_e s_e B_e A_e x` needs `g`, one weight per row and expert. Three layouts give it:
    any weights for each row; a *population*, where row `e * rows_each + n` belongs wholly to expert `e`
    (adapter-major, `[E, N]`); and the reference policy, `g = 0`, which is the base model exactly.

    Weights for each row may carry a gate, which turns them, its prior, into weights for each block and token:
    `g = scale * gate(block input, prior, preference)`. Prompt tokens before the last run under `scale * prior`; the
    last one is gated, since its output is the first token of the completion.

    A *row gate* chooses one set of weights for each row, by its prompt and preference. It is asked when the rows are
    read, with its parameters as they are then, see `resolved`; from there on they are ordinary weights for each row.

    At the levels of log-probabilities, of probabilities and of hidden states there are weights for each row, and
    nothing else.

    Attributes:
        expert_weights: `[B, E]`, of a gated mixing the prior; None for a population and for the reference policy.
        experts: Number of experts E; 0 for the reference policy.
        rows_each: Rows of each expert in a population, else 0.
        batch: Number of rows B.
        members: Which experts of the bank a population is made of, in order; None for all.
        gate: The gate; None where every token has the weights of its row.
        row_gate: The gate that is still to choose weights for each row; None where they are what they are.
        context: What the row gate reads of the prompts, `[B, D]`.
        preferences: What a gate reads beside that, `[B, K]`.
        shown: What the gate of each block reads in place of the block's input, the same for all tokens, `[B, blocks,
            H]`; None for the input itself. A control of what context buys: 0 leaves nothing to read.
        listener: Hears of the weights that a gate chooses.
        lengths: Tokens of each row's completion, for the listener, `[B]`.
        scale: What multiplies the weights of a row behind the gate, as a whole, `[B]`, or each expert's, `[B, E]`; in
            mixed hidden states as a whole. None for 1.
        level: Where the experts are mixed.
        block: For hidden states: number of the block behind which they are mixed; see `core.protocols.Mixer`.
        continued: For hidden states: what the one stream behind that block runs under.
        norm: For hidden states behind the last block: on which side of the final norm they are mixed.
        divergence: For log-probabilities: what keeps the mixture near the base model.
        weighed: For log-probabilities under the reverse KL: whether the logits are sums of log-probabilities, so that
            their log-sum-exp is the log of Z, what the product of the experts is divided by.
    """

    batch: int
    experts: int
    expert_weights: Tensor | None = None
    rows_each: int = 0
    members: tuple[int, ...] | None = None
    gate: Gate | None = None
    preferences: Tensor | None = None
    scale: Tensor | None = None
    level: Level = "adapters"
    block: int | None = None
    continued: Continued = "base"
    norm: Norm = "before"
    divergence: Divergence = "reverse_kl"
    weighed: bool = False
    row_gate: RowGate | None = None
    context: Tensor | None = None
    shown: Tensor | None = None
    listener: Listener | None = None
    lengths: Tensor | None = None

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
    def gated(
        cls,
        expert_weights: Tensor,
        gate: Gate,
        preferences: Tensor,
        scale: Tensor | None = None,
        shown: Tensor | None = None,
    ) -> Mixing:
        """Let a gate weigh experts for each block and token, beginning at the last prompt token.

        Args:
            expert_weights: The prior, `[B, E]`.
            gate: The gate.
            preferences: Of the rows, `[B, K]`.
            scale: Multiplies all weights of a row, `[B]`, or each of them, `[B, E]`: 0 is the base model exactly,
                between 0 and 1 lie policies of less KL.
            shown: What the gate of each block reads in place of the block's input, `[B, blocks, H]`.

        Raises:
            ShapeError: If the arguments disagree on rows, experts or objectives, or are not finite.
        """
        mixing = cls._under(gate, expert_weights, preferences, scale)
        expected = (mixing.batch, gate.blocks)
        if shown is not None and (shown.ndim != 3 or shown.shape[:2] != expected or not bool(shown.isfinite().all())):
            raise ShapeError(
                f"shown must be finite and [{mixing.batch}, {gate.blocks}, H], one row for each of expert_weights and "
                f"one entry for each of the gate's blocks, got shape {list(shown.shape)}. Give each block of each row "
                "what its gate is to read."
            )
        return replace(mixing, gate=gate, shown=shown)

    @classmethod
    def by_prompt(
        cls,
        expert_weights: Tensor,
        gate: RowGate,
        preferences: Tensor,
        context: Tensor,
        scale: Tensor | None = None,
    ) -> Mixing:
        """Let a gate weigh experts for each row, the same for all its tokens and blocks.

        Args:
            expert_weights: The prior, `[B, E]`.
            gate: The gate.
            preferences: Of the rows, `[B, K]`.
            context: What the gate reads of the rows' prompts, `[B, D]`.
            scale: Multiplies all weights of a row, `[B]`, or each of them, `[B, E]`.

        Raises:
            ShapeError: If the arguments disagree on rows, experts or objectives, or are not finite.
        """
        mixing = cls._under(gate, expert_weights, preferences, scale)
        if context.ndim != 2 or len(context) != mixing.batch or not bool(torch.isfinite(context).all()):
            raise ShapeError(
                f"context must be finite and [{mixing.batch}, D], one row for each of expert_weights, got shape "
                f"{list(context.shape)}. Read the prompt of each row."
            )
        return replace(mixing, row_gate=gate, context=context)

    @classmethod
    def _under(
        cls, gate: Gate | RowGate, expert_weights: Tensor, preferences: Tensor, scale: Tensor | None
    ) -> Mixing:  # fmt: skip
        mixing = cls.of_rows(expert_weights)
        rows = mixing.batch
        if mixing.experts != gate.experts:
            raise ShapeError(
                f"expert_weights must have one column for each of the gate's {gate.experts} experts, got "
                f"{mixing.experts}. Use the gate that was trained with these experts."
            )
        if preferences.shape != (rows, gate.objectives) or not bool(torch.isfinite(preferences).all()):
            raise ShapeError(
                f"preferences must be finite and [{rows}, {gate.objectives}], one row for each of expert_weights, got "
                f"shape {list(preferences.shape)}. Give the gate the preferences it was trained on."
            )
        shapes = (rows,), (rows, mixing.experts)
        if scale is not None and (scale.shape not in shapes or not bool(torch.isfinite(scale).all())):
            raise ShapeError(
                f"scale must be finite, one per row ({rows}), or one per row and expert, got {scale.tolist()}."
            )
        return replace(mixing, preferences=preferences, scale=scale)

    @classmethod
    def of_log_probs(
        cls, expert_weights: Tensor, divergence: Divergence = "reverse_kl", weighed: bool = False
    ) -> Mixing:
        """Mix the log-probabilities of experts, `[B, E]`; what a row's weights leave of one is the base model's.

        Args:
            expert_weights: `[B, E]`, any numbers.
            divergence: What keeps the mixture near the base model.
            weighed: Whether the logits are sums of log-probabilities, and their log-sum-exp is asked for.
        """
        return replace(cls.of_rows(expert_weights), level="log_probs", divergence=divergence, weighed=weighed)

    @classmethod
    def of_probabilities(cls, expert_weights: Tensor) -> Mixing:
        """Mix the probabilities of experts, `[B, E]`; what a row's weights leave of one is the base model's.

        Raises:
            MixingError: If a row's weights and what they leave are no distribution.
        """
        mixing = cls.of_rows(expert_weights)
        sums = expert_weights.sum(dim=1)
        wrong = ((expert_weights < 0).any(dim=1) | (sums > 1 + WHOLE)).nonzero().flatten().tolist()
        if wrong:
            row = [round(weight, 4) for weight in expert_weights[wrong[0]].tolist()]
            raise MixingError(
                f"expert_weights must be non-negative and sum to at most 1 to mix probabilities, got {row} (sum "
                f"{float(sums[wrong[0]]):.4g}). Answer with points of the simplex, scale by at most 1, or mix "
                "log-probabilities."
            )
        return replace(mixing, level="probabilities")

    @classmethod
    def of_hidden_states(
        cls,
        expert_weights: Tensor,
        block: int | None = None,
        continued: Continued = "base",
        scale: Tensor | None = None,
        norm: Norm = "before",
    ) -> Mixing:
        """Mix hidden states of experts behind one block; one stream reads on from there.

        Args:
            expert_weights: `[B, E]`; states are summed with them as they are.
            block: Number of the block; None is the last, and so is -1.
            continued: `base`: later blocks run under no expert; `soup`: under the experts' deltas, weighed alike.
            scale: Multiplies the weights of a row, `[B]`; the base model's own states get what it takes from one.
            norm: Behind the last block: on which side of the final norm.
        """
        mixing = cls.of_rows(expert_weights)
        if scale is not None and (scale.shape != (mixing.batch,) or not bool(torch.isfinite(scale).all())):
            raise ShapeError(f"scale must be finite, one per row ({mixing.batch}), got {scale.tolist()}.")
        return replace(mixing, level="hidden", block=block, continued=continued, scale=scale, norm=norm)

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

    def dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the weights written out, `[B, E]`; of a gated mixing those of the tokens before the gate."""
        if self.expert_weights is not None:
            weights = self.expert_weights
            if self.scale is not None:
                weights = weights * by_expert(self.scale).to(weights.device)
            return weights.to(dtype)
        members = list(range(self.experts)) if self.members is None else list(self.members)
        return torch.eye(self.experts, dtype=dtype)[members].repeat_interleave(self.rows_each, dim=0)

    def resolved(self) -> Mixing:
        """Return the mixing with the weights that its row gate chooses now; the mixing itself where there is none.

        Rows that are alike in all that the gate reads are asked for once: their weights are equal bit for bit, and they
        can share what is read. Differentiable in the gate's parameters.

        Raises:
            ShapeError: If the gate returns something else than weights `[B, E]`.
            NonFiniteError: If they are not finite.
        """
        gate = self.row_gate
        if gate is None or self.expert_weights is None or self.preferences is None or self.context is None:
            return self
        parts = [self.context, self.expert_weights.to(self.context.device), self.preferences.to(self.context.device)]
        keys = _row_bytes(parts)
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        places = {key: row for row, key in reversed([*enumerate(keys)])}  # the first row of each
        once = torch.tensor([places[key] for key in numbers], device=self.context.device)
        weights: Any = gate.row_weights(*(part[once] for part in parts))
        expected, name = (len(numbers), self.experts), type(gate).__name__
        if not isinstance(weights, Tensor) or weights.shape != expected:
            got = f"shape {list(weights.shape)}" if isinstance(weights, Tensor) else described(weights)
            raise ShapeError(
                f"row_weights of {name} must return a tensor of shape {list(expected)}, [B, E], got {got}. Return it."
            )
        if not bool(torch.isfinite(weights).all()):
            raise NonFiniteError(
                f"weights of {name} must be finite, got NaN or infinity. Lower the learning rate, or correct what the "
                "gate returns."
            )
        chosen = weights[torch.tensor([numbers[key] for key in keys], device=weights.device)]
        if self.listener is not None:
            every = torch.ones(self.batch, 1, dtype=torch.bool, device=chosen.device)
            self.listener.hear(chosen[:, None], parts[1], every, 0)
        chosen = selected(gate, chosen)
        if self.scale is not None:
            chosen = chosen * by_expert(self.scale).to(chosen.device)
        return Mixing.of_rows(chosen)

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
            chosen = Mixing.of_rows(self.expert_weights[index.to(self.expert_weights.device)])
            preferences = None if self.preferences is None else self.preferences[index.to(self.preferences.device)]
            scale = None if self.scale is None else self.scale[index.to(self.scale.device)]
            context, shown, lengths = (
                None if each is None else each[index.to(each.device)]
                for each in (self.context, self.shown, self.lengths)
            )
            return replace(
                self, batch=chosen.batch, expert_weights=chosen.expert_weights, preferences=preferences, scale=scale,
                context=context, shown=shown, lengths=lengths,
            )  # fmt: skip
        owner = index.cpu() // self.rows_each
        each, left = divmod(len(index), self.blocks)
        if not left and bool((owner == torch.arange(self.blocks).repeat_interleave(each)).all()):
            return Mixing.population(self.experts, each, self.members)
        return Mixing.of_rows(self.dense()[index.cpu()])

    def heard_by(self, listener: Listener, lengths: Tensor) -> Mixing:
        """Return the mixing with one who hears of the weights of completions of these lengths, `[B]`."""
        return replace(self, listener=listener, lengths=lengths)

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

    def group_keys(self, gated: bool = True) -> list[bytes]:
        """Return one key per row; rows of equal key use the experts equally where they read the same tokens.

        Args:
            gated: Whether some of these tokens are gated. The tokens before the gate depend on less.
        """
        if self.is_reference:
            return [b""] * self.batch
        if self.expert_weights is None:
            return [str(row // self.rows_each).encode() for row in range(self.batch)]
        read: tuple[Tensor | None, ...] = ()
        if self.row_gate is not None:  # it weighs all tokens
            read = self.preferences, self.scale, self.context
        elif gated or self.level == "hidden":
            read = self.preferences, self.scale, self.shown
        return _row_bytes([self.dense(), *(part for part in read if part is not None)])


def by_expert(scale: Tensor) -> Tensor:
    """Return the scale of some rows, `[B]` or `[B, E]`, as what multiplies their expert weights."""
    return scale if scale.ndim == 2 else scale[:, None]


def selected(gate: Gate | RowGate, weights: Tensor) -> Tensor:
    """Return what is mixed of the weights that a gate returned, `[..., E]`: all of it, unless the gate selects."""
    select = getattr(gate, "selected", None)
    chosen: Tensor = weights if select is None else select(weights)
    return chosen


def _row_bytes(parts: Sequence[Tensor]) -> list[bytes]:
    """Return what some tensors hold of each row, `[B, ...]` each."""
    rows = len(parts[0])
    written = torch.cat([part.detach().float().cpu().reshape(rows, -1) for part in parts], dim=1).numpy()
    return [row.tobytes() for row in written]
