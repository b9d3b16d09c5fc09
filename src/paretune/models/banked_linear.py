"""One wrapped layer, and the mixing that is pinned for all layers of a bank while they run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from paretune.core.errors import MixingError, ShapeError
from paretune.core.user_calls import shown
from paretune.models.capture import Capture
from paretune.models.merged_linear import merged_linear
from paretune.models.mixing import GateFrom, Mixing, by_expert, selected


class BankedLinear(nn.Module):
    """A linear layer with stacked experts: `y = W x + sum_e g_e s_e B_e A_e x`.

    The original module is called, not copied, so a quantised layer stays possible.

    Attributes:
        original: The frozen layer.
        A: Down-projections `[E, r, in]`.
        B: Up-projections `[E, out, r]`.
        number: Its place among the bank's layers.
        pinned: Shared by all layers of the bank: the mixing in force.
    """

    def __init__(self, original: nn.Module, in_features: int, out_features: int, number: int, pinned: Pinned) -> None:
        super().__init__()
        self.original = original
        self.in_features, self.out_features = in_features, out_features
        self.A, self.B = nn.Parameter(torch.empty(0)), nn.Parameter(torch.empty(0))
        self.number, self.pinned = number, pinned
        self.plain = type(original) is nn.Linear and original.bias is None

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer and the experts of the pinned mixing to `[B, ..., in]`, or to rows laid flat, `[B T, in]`."""
        pin = self.pinned.pin
        if pin is None:
            raise MixingError(
                "a wrapped layer must run under a mixing, got none. Wrap the forward and the backward pass in "
                "`with bank.using(mixing):`."
            )
        learning = torch.is_grad_enabled()
        fits = x.shape[0] == pin.batch or pin.lays_flat(x)
        if pin.merges and not learning and fits:
            return self._merged(x, pin)
        if pin.layout == "reference":
            untouched: Tensor = self.original(x)
            return untouched
        if not fits:
            raise MixingError(
                f"a wrapped layer must see the {pin.batch} rows of its mixing, got {x.shape[0]}. "
                "Use mixing.rows(index) when rows are dropped."
            )
        capture = self.pinned.capture if learning else None
        if capture is not None:
            capture.check(pin.mixing)
        down, up = pin.lay_out(self, x.dtype) if learning else pin.prepared(self, x.dtype)
        shape = (*x.shape[:-1], self.out_features)
        if pin.layout == "population":
            inputs = x.reshape(pin.blocks, -1, self.in_features)
            if pin.merges and not torch.is_autocast_enabled(x.device.type):
                weight, bias = pin.prepared(self, x.dtype)
                return merged_linear(inputs, weight, bias, down, up, capture, self.number).view(shape)
            rows = self.original(inputs)  # read as laid out: what is added to below is then no view of another tensor
            if capture is not None:
                return capture.add_delta(self.number, rows, inputs, down, up).view(shape)
            z = torch.bmm(inputs, down)
            return (rows.baddbmm_(z, up) if self._in_place(rows, z, up) else torch.baddbmm(rows, z, up)).view(shape)
        flat = x.reshape(-1, self.in_features)
        z = torch.mm(flat, down)
        each = z.view(pin.batch, -1, z.shape[1])
        z = (each * pin.gate if learning else each.mul_(pin.gate)).view(z.shape)
        rows = self.original(flat)
        return (rows.addmm_(z, up) if self._in_place(rows, z, up) else torch.addmm(rows, z, up)).view(shape)

    def _in_place(self, rows: Tensor, z: Tensor, up: Tensor) -> bool:
        """Whether `z up` may be added to the layer's own output, of which a copy would cost as much as the product.

        A plain layer keeps nothing of its output for a backward pass; of other kinds that is not known. Under autocast
        types may differ, which only the sum that makes a new tensor brings together.
        """
        return (self.plain or not torch.is_grad_enabled()) and rows.dtype == z.dtype == up.dtype

    def _merged(self, x: Tensor, pin: Pin) -> Tensor:
        """Apply `W + s_e B_e A_e`, one matrix for each block of a population."""
        weight, bias = pin.prepared(self, x.dtype)
        if pin.blocks == 1:
            return nn.functional.linear(x, weight[0], bias)
        rows = x.reshape(pin.blocks, -1, self.in_features)
        y = torch.bmm(rows, weight.transpose(1, 2)) if bias is None else torch.baddbmm(bias, rows, weight.mT)
        return y.view(*x.shape[:-1], self.out_features)


class Pinned:
    """Holds the mixing in force for all layers of a bank, and what collects gradients of several objectives."""

    def __init__(self) -> None:
        self.pin: Pin | None = None
        self.capture: Capture | None = None

    def note_call(self, model: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Note how many rows the whole model is called with, before it runs: inside, some models lay rows flat."""
        ids = args[0] if args else named.get("input_ids", named.get("inputs_embeds"))
        if self.pin is not None and isinstance(ids, Tensor):
            self.pin.read = ids.shape[0]


Prepared = dict[int, tuple[Tensor, Any]]  # number of a layer -> its down and up factors, or merged matrices and bias


class Pin:
    """A mixing in force, with what its layers prepare for it once.

    Without gradients the stacked factors are laid out once per layer; with gradients they are laid out at every call,
    so that recomputation in the backward pass builds the same graph. Merged matrices carry no graph and are made once.

    Attributes:
        layout: `reference`, `population` or `rows`.
        batch: Number of rows B.
        blocks: Blocks of a population.
        gate: `g_e s_e` of each row, repeated over the rank, for the layout `rows`: `[B, 1, E r]`, or of each token
            `[B, T, E r]` while a gated block runs.
        gate_from: First token of a pass that the mixing's gate weighs: one for all rows, or one for each.
        read: Rows that the whole model was last called with under this mixing.
        merges: Whether passes use merged matrices, under autocast only those without gradients: a population in fp32,
            whose matrices are few enough to keep one copy for each block. In bf16 the sum would round experts away.
    """

    def __init__(
        self, mixing: Mixing, factors: Prepared, gate_from: GateFrom, scales: Tensor, rank: int, dtype: torch.dtype,
        merges: bool,
    ) -> None:  # fmt: skip
        self.mixing, self.batch, self._factors, self.gate_from = mixing, mixing.batch, factors, gate_from
        self.scales, self._rank, self._dtype, self.merges = scales, rank, dtype, merges
        self.layout = "reference" if mixing.is_reference else "population" if mixing.is_population else "rows"
        self.blocks = mixing.blocks if mixing.is_population else 0
        self.read = 0
        self.gate = self._prior = self._preferences = torch.empty(0)
        self._carried: Tensor | None = None  # of a gate that chooses at one block for those from there on
        self.reads_block: int | None = getattr(mixing.gate, "reads_block", None)
        if mixing.expert_weights is not None:
            self._prior = mixing.expert_weights.to(self.scales.device)
            self.gate = self._spread(self._prior[:, None, :])
        if mixing.preferences is not None:
            self._preferences = mixing.preferences.to(self.scales.device)
        self.before_gate = self.gate
        if not isinstance(gate_from, int) and len(gate_from) != self.batch:
            count = len(gate_from)
            raise ShapeError(
                f"gate_from must be one for all rows or one for each ({self.batch}), got {count}. Give each row one."
            )

    def lays_flat(self, x: Tensor) -> bool:
        """Whether a layer is given all tokens of all rows behind each other, `[B T, in]`: some models flatten rows."""
        return x.ndim == 2 and self.read == self.batch and x.shape[0] % self.batch == 0

    def _spread(self, weights: Tensor) -> Tensor:
        """Turn expert weights `[B, T, E]` into what layers multiply by, `[B, T, E r]`."""
        scale = self.mixing.scale
        if scale is not None:
            weights = weights * by_expert(scale).to(weights.device)[:, None]
        return (weights * self.scales).to(self._dtype).repeat_interleave(self._rank, dim=2)

    def open_gate(self, block: int, hidden: Tensor) -> None:
        """Set the weights of the layers of a block, `[B, T, E r]`, from its input `[B, T, H]`."""
        rows, tokens = hidden.shape[:2]
        if rows != self.batch:
            raise MixingError(
                f"a gated block must see the {self.batch} rows of its mixing, got {rows}. "
                "Use mixing.rows(index) when rows are dropped."
            )
        if self.reads_block is not None and block != self.reads_block:
            carried = self._carried if block > self.reads_block else None
            self.gate = self.before_gate if carried is None else carried
            return
        first = self.gate_from if isinstance(self.gate_from, int) else min(self.gate_from)
        gate, instead, listener = self.mixing.gate, self.mixing.shown, self.mixing.listener
        if first >= tokens or gate is None:
            self.gate, self._carried = self.before_gate, None
            return
        seen = hidden[:, first:]
        if instead is not None:
            seen = instead[:, block].to(hidden)[:, None].expand_as(seen)
        weights: Any = gate.weights(block, seen, self._prior, self._preferences)
        expected = (rows, tokens - first, self.mixing.experts)
        if not isinstance(weights, Tensor) or weights.shape != expected:
            got = f"shape {list(weights.shape)}" if isinstance(weights, Tensor) else shown(weights)
            raise ShapeError(
                f"weights of {type(gate).__name__} must return a tensor of shape {list(expected)}, [B, T, E], got "
                f"{got}. Return it, expanded where it is the same for several tokens."
            )
        if listener is not None and self.mixing.lengths is not None:
            inside = torch.arange(tokens - first, device=hidden.device) < self.mixing.lengths.to(hidden.device)[:, None]
            listener.hear(weights, self._prior, inside, block)
        opened = self._spread(selected(gate, weights))
        if first:
            opened = torch.cat([self.before_gate.expand(-1, first, -1), opened], dim=1)
        if not isinstance(self.gate_from, int):
            starts = torch.tensor(self.gate_from, device=hidden.device)[:, None, None]
            late = torch.arange(tokens, device=hidden.device)[None, :, None] >= starts
            opened = torch.where(late, opened, self.before_gate)
        self.gate = opened
        self._carried = None if self.reads_block is None else opened

    def carry(self, block: int, hidden: Tensor) -> Tensor | None:
        """Return weights that a block runs under and does not choose itself, `[B, T, E r]`; None where it does.

        A block that is recomputed is given them: they belong to what came before it.
        """
        if self.reads_block is not None:
            self.open_gate(block, hidden)
            return self.gate
        return self.before_gate if self.mixing.gate is None and self.before_gate.requires_grad else None

    def close_gate(self) -> None:
        """Let go of the weights of the last block, and of the graph that they belong to."""
        self.gate = self.before_gate

    def forget(self) -> None:
        """Let go of all weights of a pass."""
        self.close_gate()
        self._carried = None

    def prepared(self, layer: BankedLinear, dtype: torch.dtype) -> tuple[Tensor, Any]:
        """Return the stacked factors of a layer, or its merged matrices `[E, out, in]` and bias, made once."""
        found = self._factors.get(layer.number)
        if found is None:
            with torch.no_grad():
                down, up = self.lay_out(layer, dtype)
                found = self._merge(layer, down, up) if self.merges else (down.contiguous(), up.contiguous())
            self._factors[layer.number] = found
        return found

    def _merge(self, layer: BankedLinear, down: Tensor, up: Tensor) -> tuple[Tensor, Any]:
        original: Any = layer.original
        weight = original.weight if isinstance(original, nn.Linear) else original.weight.t()
        # rounded once, not at every term: what is off in a matrix is off in all tokens alike
        wide = torch.float32 if weight.device.type == "mps" else torch.float64
        merged = torch.baddbmm(weight[None].to(wide), up.mT.to(wide), down.mT.to(wide))
        return merged.to(weight.dtype), original.bias

    def lay_out(self, layer: BankedLinear, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return the stacked factors: population `[E, in, r]`, `[E, r, out]`; rows `[in, E r]`, `[E r, out]`.

        A population's scale sits in its second factor, a row's in its gate.
        """
        if self.layout == "population":
            members = self.mixing.members
            down: Tensor = layer.A
            up = layer.B * self.scales[:, None, None]
            if members is not None:
                down, up = down[list(members)], up[list(members)]
            return down.to(dtype).transpose(1, 2), up.to(dtype).transpose(1, 2)
        return layer.A.to(dtype).flatten(0, 1).t(), layer.B.to(dtype).permute(0, 2, 1).flatten(0, 1)
