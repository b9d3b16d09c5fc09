"""The bank: every target linear layer of the base model, with E low-rank experts stacked beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from paretune.core.errors import MixingError, ModelError, ShapeError
from paretune.core.seeds import stream_key
from paretune.models.base import BaseModel
from paretune.models.mixing import Mixing

Prepared = dict[int, tuple[int, Tensor, Tensor]]  # id of a layer -> version of its experts, down and up factors


class BankedLinear(nn.Module):
    """A linear layer with stacked experts: `y = W x + sum_e g_e s_e B_e A_e x`.

    The original module is called, not copied, so a quantised layer stays possible.

    Attributes:
        original: The frozen layer.
        A: Down-projections `[E, r, in]`.
        B: Up-projections `[E, out, r]`.
    """

    def __init__(self, original: nn.Module, in_features: int, out_features: int, experts: int, rank: int) -> None:
        super().__init__()
        self.original = original
        self.in_features = in_features
        self.out_features = out_features
        self.sizes = (rank * in_features, out_features * rank)
        self.shapes = ((experts, rank, in_features), (experts, out_features, rank))
        self.A, self.B = nn.Parameter(torch.empty(0)), nn.Parameter(torch.empty(0))
        self.pin: Pin | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer and the experts of the pinned mixing to `[B, ..., in]`."""
        pin = self.pin
        if pin is None:
            raise MixingError(
                "a wrapped layer must run under a mixing, got none. Wrap the forward and the backward pass in "
                "`with bank.using(mixing):`."
            )
        y: Tensor = self.original(x)
        mixing = pin.mixing
        if mixing.is_reference:
            return y
        if x.shape[0] != mixing.batch:
            raise MixingError(
                f"a wrapped layer must see the {mixing.batch} rows of its mixing, got {x.shape[0]}. "
                "Use mixing.rows(index) when rows are dropped."
            )
        down, up = pin.factors(self, x)
        if mixing.is_population:
            each = mixing.blocks, -1
            z = torch.bmm(x.reshape(*each, self.in_features), down)
            return torch.baddbmm(y.reshape(*each, self.out_features), z, up).view(y.shape)
        flat = x.reshape(-1, self.in_features)
        z = torch.mm(flat, down).view(mixing.batch, -1, down.shape[1]) * pin.gate
        return torch.addmm(y.reshape(-1, self.out_features), z.view(flat.shape[0], -1), up).view(y.shape)


class Pin:
    """A mixing in force, with what its layers prepare for it once.

    Without gradients the stacked factors are laid out once per layer; with gradients they are laid out at every call,
    so that recomputation in the backward pass builds the same graph.
    """

    def __init__(self, bank: ExpertBank, mixing: Mixing, prepared: Prepared) -> None:
        self.bank, self.mixing = bank, mixing
        self.scales = scales = bank.scales
        rank, dtype = bank.rank, bank.base.dtype
        self.gate = torch.empty(0)
        self._prepared = prepared
        if mixing.expert_weights is not None:
            weights = mixing.expert_weights.to(scales.device) * scales
            self.gate = weights.to(dtype).repeat_interleave(rank, dim=1)[:, None, :]  # [B, 1, E r]

    def factors(self, layer: BankedLinear, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the stacked factors in the layout of this mixing: population `[E, in, r]`, `[E, r, out]`; rows
        `[in, E r]`, `[E r, out]`. A population's scale sits in its second factor, a row's in its gate.
        """
        if torch.is_grad_enabled():
            return self._layout(layer, x.dtype)
        version = self.bank.flat._version  # grows with every in-place update of the experts
        found = self._prepared.get(id(layer))
        if found is None or found[0] != version:
            down, up = self._layout(layer, x.dtype)
            found = self._prepared[id(layer)] = (version, down.contiguous(), up.contiguous())
        return found[1], found[2]

    def _layout(self, layer: BankedLinear, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        if self.mixing.is_population:
            members = self.mixing.members
            down: Tensor = layer.A
            up = layer.B * self.scales[:, None, None]
            if members is not None:
                down, up = down[list(members)], up[list(members)]
            return down.to(dtype).transpose(1, 2), up.to(dtype).transpose(1, 2)
        return layer.A.to(dtype).flatten(0, 1).t(), layer.B.to(dtype).permute(0, 2, 1).flatten(0, 1)


class ExpertBank:
    """E low-rank experts over one frozen base model.

    Wraps the target layers of the base model in place; `unwrap` puts the originals back. A base model carries at most
    one bank at a time.

    Attributes:
        base: The frozen base model.
        layers: Path of each wrapped layer -> the wrapped layer.
        flat: Parameters of all experts, one row each, `[E, P]`; the layers' factors are views of it.
            Change it in place.
    """

    def __init__(
        self,
        base: BaseModel,
        experts: int,
        rank: int = 8,
        alpha: float = 16.0,
        targets: Sequence[str] | None = None,
    ) -> None:
        """Wrap the target layers of a base model.

        Args:
            base: The base model.
            experts: Number of experts E.
            rank: Rank r of every expert.
            alpha: Numerator of the scale `alpha / rank`.
            targets: Last parts of the names of layers to wrap; by default every linear layer but the output head.

        Raises:
            ModelError: If the base model has no linear layer to wrap, or already carries a bank.
            ShapeError: If there is less than one expert or rank.
        """
        if experts < 1 or rank < 1:
            raise ShapeError(f"a bank must have at least one expert and rank 1, got {experts} and {rank}.")
        self.base = base
        self.rank = rank
        self.experts = experts
        self._prepared: dict[tuple[str, tuple[int, ...] | None], Prepared] = {}
        self.alphas = torch.full((experts,), float(alpha))
        if getattr(base.model, "_paretune_bank", None) is not None:
            base.model._paretune_bank.unwrap()
        found = dict(_linear_layers(base.model, targets))
        if not found:
            wanted = "any linear layer" if targets is None else f"a linear layer named {', '.join(targets)}"
            raise ModelError(
                f"model must have {wanted} beside its output head, got none in '{base.name}'. "
                "Name the layers to adapt in `targets`."
            )
        self.layers: dict[str, BankedLinear] = {}
        for path, (layer, in_features, out_features) in found.items():
            banked = BankedLinear(layer, in_features, out_features, experts, rank)
            parent, _, name = path.rpartition(".")
            setattr(base.model.get_submodule(parent), name, banked)
            self.layers[path] = banked
        base.model._paretune_bank = self
        size = sum(sum(layer.sizes) for layer in self.layers.values())
        self.flat = torch.zeros(experts, size, device=base.device)
        self._lay_out()

    def _lay_out(self) -> None:
        """Make the factors of all layers views of `flat`, so that an expert is one row of one matrix."""
        start = 0
        for layer in self.layers.values():
            for name, size, shape in zip(("A", "B"), layer.sizes, layer.shapes, strict=True):
                setattr(layer, name, nn.Parameter(self.flat[:, start : start + size].view(shape)))
                start += size

    def take_gradients(self) -> Tensor:
        """Return what backward passes have added up since the last call, `[E, P]`, and start again from zero."""
        rows = []
        for parameter in self.expert_parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            rows.append(gradient.flatten(1))
            parameter.grad = None
        return torch.cat(rows, dim=1)

    @property
    def alphas(self) -> Tensor:
        """Numerators of the scales, `[E]`. Replace them, never change them in place: prepared factors hold them."""
        return self._alphas

    @alphas.setter
    def alphas(self, alphas: Tensor) -> None:
        self._alphas = alphas
        self._prepared.clear()

    @property
    def scales(self) -> Tensor:
        """`alpha_e / rank`, `[E]`, on the base model's device."""
        return (self.alphas / self.rank).to(self.base.device)

    def unwrap(self) -> None:
        """Put the original layers back into the base model."""
        for path, banked in self.layers.items():
            parent, _, name = path.rpartition(".")
            if self.base.model.get_submodule(path) is banked:
                setattr(self.base.model.get_submodule(parent), name, banked.original)
        self.base.model._paretune_bank = None

    def rewrap(self) -> None:
        """Put this bank's layers back after another bank has used the base model."""
        current = getattr(self.base.model, "_paretune_bank", None)
        if current is self:
            return
        if current is not None:
            current.unwrap()
        for path, banked in self.layers.items():
            parent, _, name = path.rpartition(".")
            setattr(self.base.model.get_submodule(parent), name, banked)
        self.base.model._paretune_bank = self

    def expert_parameters(self) -> list[nn.Parameter]:
        """Return the stacked factors of all layers, A and B in turn."""
        return [parameter for layer in self.layers.values() for parameter in (layer.A, layer.B)]

    def parameters_each(self) -> int:
        """Return the number of parameters P of one expert."""
        return self.flat.shape[1]

    @torch.no_grad()
    def initialise(self, seeds: Sequence[int]) -> None:
        """Start every expert as the base model: A random (Kaiming, as in PEFT), B zero.

        Args:
            seeds: One per expert; equal seeds give equal starts, so that experts to be averaged share theirs.

        Raises:
            ShapeError: If there is not one seed per expert.
        """
        if len(seeds) != self.experts:
            raise ShapeError(f"seeds must be one per expert ({self.experts}), got {len(seeds)}.")
        self.flat.zero_()
        start = 0
        for path, layer in self.layers.items():
            bound = 1 / math.sqrt(layer.in_features)  # kaiming_uniform_ with a = sqrt(5), PEFT's default
            for expert, seed in enumerate(seeds):
                generator = torch.Generator().manual_seed(stream_key(seed, "expert", path) % 2**63)
                draws = torch.rand(layer.sizes[0], generator=generator)
                self.flat[expert, start : start + layer.sizes[0]] = (draws * 2 - 1) * bound
            start += sum(layer.sizes)

    @contextmanager
    def using(self, mixing: Mixing) -> Iterator[None]:
        """Pin a mixing for forward *and* backward: gradient checkpointing recomputes inside the backward pass.

        Args:
            mixing: Expert weights for the rows that the base model is about to see.

        Raises:
            MixingError: If the mixing is for another number of experts, or another bank wraps the base model.
        """
        if getattr(self.base.model, "_paretune_bank", None) is not self:
            self.rewrap()
        if not mixing.is_reference and mixing.experts != self.experts:
            raise MixingError(
                f"mixing must weigh the {self.experts} experts of the bank, got {mixing.experts}. "
                "Make it from as many weights as the bank has experts."
            )
        layout = ("population" if mixing.is_population else "rows", mixing.members)
        pin = Pin(self, mixing, self._prepared.setdefault(layout, {}))
        before = [layer.pin for layer in self.layers.values()]
        for layer in self.layers.values():
            layer.pin = pin
        try:
            yield
        finally:
            for layer, earlier in zip(self.layers.values(), before, strict=True):
                layer.pin = earlier


def _linear_layers(model: Any, targets: Sequence[str] | None) -> Iterator[tuple[str, tuple[nn.Module, int, int]]]:
    """Yield path, layer, input and output size of every layer to wrap."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    for path, module in model.named_modules():
        if module is head or (targets is not None and path.rpartition(".")[2] not in targets):
            continue
        if isinstance(module, nn.Linear):
            yield path, (module, module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            yield path, (module, module.weight.shape[0], module.weight.shape[1])
