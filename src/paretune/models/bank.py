"""The bank: every target linear layer of the base model, with E low-rank experts stacked beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from paretune.core.errors import MixingError, ModelError, ShapeError
from paretune.core.seeds import stream_key
from paretune.models.banked_linear import BankedLinear, Pin, Pinned, Prepared
from paretune.models.base import BaseModel
from paretune.models.blocks import find_blocks, gated, pinned_by_block
from paretune.models.capture import Capture
from paretune.models.mixing import GateFrom, Mixing

EXPERT_NAMES = ("gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3")
MERGED_MOST = 2**26  # numbers in all merged matrices of a population together: 256 MiB in fp32


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
            targets: Last parts of the names of layers to wrap; by default every linear layer but the output head
                and, in mixtures of fused experts, what is named like these.

        Raises:
            ModelError: If the base model has no linear layer to wrap, or already carries a bank.
            ShapeError: If there is less than one expert or rank.
        """
        if experts < 1 or rank < 1:
            raise ShapeError(
                f"a bank must have at least one expert and rank 1, got {experts} and {rank}. Raise what is 0."
            )
        self.base = base
        self.rank = rank
        self.experts = experts
        self._prepared: dict[tuple[str, tuple[int, ...] | None], Prepared] = {}
        self._last: Pin | None = None
        self.alphas = torch.full((experts,), float(alpha))
        if getattr(base.model, "_paretune_bank", None) is not None:
            base.model._paretune_bank.unwrap()
        found = dict(linear_layers(base.model, targets))
        if not found:
            wanted = "any linear layer" if targets is None else f"a linear layer named {', '.join(targets)}"
            raise ModelError(
                f"model must have {wanted} beside its output head, got none in '{base.name}'. "
                "Name the layers to adapt in `targets`."
            )
        self.layers: dict[str, BankedLinear] = {}
        self._pinned = Pinned()
        self._listen()  # from now on, whoever cleans up after an error knows what to take off
        for number, (path, (layer, in_features, out_features)) in enumerate(found.items()):
            banked = BankedLinear(layer, in_features, out_features, number, self._pinned)
            parent, _, name = path.rpartition(".")
            setattr(base.model.get_submodule(parent), name, banked)
            self.layers[path] = banked
        self.wrapped_size = sum(layer.in_features * layer.out_features for layer in self.layers.values())
        self.mergeable = base.dtype == torch.float32 and all(
            type(layer.original).__name__ in ("Linear", "Conv1D") for layer in self.layers.values()
        )
        size = rank * sum(layer.in_features + layer.out_features for layer in self.layers.values())
        self.flat = torch.zeros(experts, size, device=base.device)
        self._flat_version = self.flat._version
        self._lay_out()

    def _lay_out(self) -> None:
        """Make the factors of all layers views of `flat`, so that an expert is one row of one matrix."""
        start = 0
        for layer in self.layers.values():
            for name, shape in (("A", (self.rank, layer.in_features)), ("B", (layer.out_features, self.rank))):
                size = shape[0] * shape[1]
                view = self.flat[:, start : start + size].view(self.experts, *shape)
                setattr(layer, name, nn.Parameter(view))
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
        self._forget()

    def _forget(self) -> None:
        """Drop what was prepared from factors or scales that have changed."""
        self._prepared.clear()
        self._last = None

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
        self._listening.remove()
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
        self._listen()

    def _listen(self) -> None:
        """Be the bank of the base model, and hear of each call of it."""
        self._listening = self.base.model.register_forward_pre_hook(self._pinned.note_call, with_kwargs=True)
        self.base.model._paretune_bank = self

    def expert_parameters(self) -> list[nn.Parameter]:
        """Return the stacked factors of all layers, A and B in turn."""
        return [parameter for layer in self.layers.values() for parameter in (layer.A, layer.B)]

    def parameters_each(self) -> int:
        """Return the number of parameters P of one expert."""
        return self.flat.shape[1]

    @torch.no_grad()
    def initialise(self, seeds: Sequence[int], ranks: Sequence[int] = ()) -> None:
        """Start every expert as the base model: A random (Kaiming, as in PEFT), B zero.

        Args:
            seeds: One per expert; equal seeds give equal starts, so that experts to be averaged share theirs.
            ranks: Where experts have lower ranks than the bank, one per expert. Beyond it A is zero too: either
                factor's gradient is a product with the other, so that both stay zero whatever is learned.

        Raises:
            ShapeError: If there is not one seed per expert, or one rank that the bank has.
        """
        if len(seeds) != self.experts:
            raise ShapeError(
                f"seeds must be one per expert ({self.experts}), got {len(seeds)}. Give each its own or share."
            )
        if ranks and (len(ranks) != self.experts or not 1 <= min(ranks) <= max(ranks) <= self.rank):
            raise ShapeError(
                f"ranks must be one per expert ({self.experts}), from 1 to that of the bank ({self.rank}), got "
                f"{list(ranks)}. Make the bank of the highest one."
            )
        self.flat.zero_()
        start = 0
        for path, layer in self.layers.items():
            bound = 1 / math.sqrt(layer.in_features)  # kaiming_uniform_ with a = sqrt(5), PEFT's default
            for expert, seed in enumerate(seeds):
                generator = torch.Generator().manual_seed(stream_key(seed, "expert", path) % 2**63)
                draws = torch.rand(self.rank * layer.in_features, generator=generator)
                self.flat[expert, start : start + len(draws)] = (draws * 2 - 1) * bound
            for expert, rank in enumerate(ranks):
                layer.A[expert, rank:] = 0
            start += self.rank * (layer.in_features + layer.out_features)

    @cached_property
    def blocks(self) -> list[nn.Module]:
        """The transformer blocks that hold the wrapped layers, in order.

        Raises:
            ModelError: If the wrapped layers do not lie in one list of blocks.
        """
        return find_blocks(self.base.model, self.layers, self.base.name)

    @contextmanager
    def using(self, mixing: Mixing, gate_from: GateFrom = 0) -> Iterator[None]:
        """Pin a mixing for forward *and* backward: gradient checkpointing recomputes inside the backward pass.

        Args:
            mixing: Expert weights for the rows that the base model is about to see.
            gate_from: First token of the pass whose weights the mixing's gate chooses; earlier ones run under the
                prior. One for all rows, or one for each. Without a gate it says nothing.

        Raises:
            MixingError: If the mixing is for another number of experts, or its gate for another number of blocks.
            ShapeError: If `gate_from` is neither one number nor one for each row.
            ModelError: If the mixing has a gate, and the model no one list of blocks.
        """
        pin = self._pin(mixing, gate_from)
        before, self._last = self._pinned.pin, pin
        self._pinned.pin = pin
        try:
            # weights with gradients enter a block that is recomputed as an argument of it
            apart = pin.before_gate.requires_grad and getattr(self.base.model, "is_activation_checkpointing", False)
            by_block = (mixing.gate is not None or apart) and pin is not before
            with gated(self.blocks, self._pinned, pin) if by_block else nullcontext():
                yield
        finally:
            self._pinned.pin = before

    @contextmanager
    def using_by_block(self, mixings: Sequence[Mixing]) -> Iterator[None]:
        """Pin a mixing for each transformer block, which may be of different numbers of rows, without gates.

        Args:
            mixings: One for each block; those of several blocks may be the same object.

        Raises:
            MixingError: If a mixing is for another number of experts.
            ModelError: If the wrapped layers do not lie in one list of blocks.
        """
        known = [mixing for number, mixing in enumerate(mixings) if mixing not in mixings[:number]]
        made = [self._pin(mixing) for mixing in known]
        before = self._pinned.pin
        try:
            with pinned_by_block(self.blocks, self._pinned, [made[known.index(mixing)] for mixing in mixings]):
                yield
        finally:
            self._pinned.pin = before

    def _pin(self, mixing: Mixing, gate_from: GateFrom = 0) -> Pin:
        """Return a mixing made ready for the layers."""
        if getattr(self.base.model, "_paretune_bank", None) is not self:
            self.rewrap()
        if mixing.level != "adapters":
            raise MixingError(
                f"a mixing that is pinned must be one of adapters, got one of {mixing.level}. Score or sample with it; "
                "its reader pins what it needs."
            )
        if mixing.row_gate is not None:
            raise MixingError(
                "a mixing that is pinned must have weights, got one whose gate is still to choose them. Take "
                "mixing.resolved(), forward and backward under the same one."
            )
        if not mixing.is_reference and mixing.experts != self.experts:
            raise MixingError(
                f"mixing must weigh the {self.experts} experts of the bank, got {mixing.experts}. "
                "Make it from as many weights as the bank has experts."
            )
        if mixing.gate is None:
            gate_from = 0
        elif mixing.gate.blocks != len(self.blocks):
            raise MixingError(
                f"gate must be made for the {len(self.blocks)} transformer blocks of the model, got one for "
                f"{mixing.gate.blocks}. Use the base model that the gate was made for."
            )
        if self.flat._version != self._flat_version:  # it grows with every in-place change of the experts
            self._forget()
            self._flat_version = self.flat._version
        layout = ("population" if mixing.is_population else "rows", mixing.members)
        pin = self._last
        if pin is None or pin.mixing is not mixing or pin.gate_from != gate_from:  # decoding pins one at every token
            merges = mixing.is_population and self.mergeable and mixing.blocks * self.wrapped_size <= MERGED_MOST
            factors = self._prepared.setdefault(layout, {})
            pin = Pin(mixing, factors, gate_from, self.scales, self.rank, self.base.dtype, merges)
        return pin

    @contextmanager
    def capturing(self, mixing: Mixing, coefficients: Tensor) -> Iterator[Capture]:
        """Collect the gradients of K objectives in one backward pass, instead of one gradient in the parameters.

        Pins the mixing as `using` does. Inside, score all rows in one pass of their own, with nothing shared between
        them, and backpropagate the *sum* of what objective k weighs by `coefficients[:, k]`, such as the
        log-probabilities of completions.

        Args:
            mixing: A population.
            coefficients: What each row counts in each objective, `[B, K]`, the same for all its tokens.

        Raises:
            MixingError: If the mixing is no population, or of another bank.
            ShapeError: If there is not one row of coefficients for each row of the mixing.
        """
        capture = Capture(
            mixing, coefficients.to(self.base.device), self.scales,
            [(layer.in_features, layer.out_features) for layer in self.layers.values()], self.rank,
        )  # fmt: skip
        with self.using(mixing):
            before, self._pinned.capture = self._pinned.capture, capture
            try:
                yield capture
            finally:
                self._pinned.capture = before


def linear_layers(model: Any, targets: Sequence[str] | None) -> Iterator[tuple[str, tuple[nn.Module, int, int]]]:
    """Yield path, layer, input and output size of every layer to wrap.

    Where the experts of a mixture are one parameter, PEFT takes adapters of `EXPERT_NAMES` for adapters of the experts,
    shared ones and plain blocks included; unless they are asked for, such layers stay as they are.
    """
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    fused = any(path.endswith(".gate_up_proj") and each.ndim == 3 for path, each in model.named_parameters())
    for path, module in model.named_modules():
        name = path.rpartition(".")[2]
        if module is head or (name not in targets if targets is not None else fused and name in EXPERT_NAMES):
            continue
        if isinstance(module, nn.Linear):
            yield path, (module, module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            yield path, (module, module.weight.shape[0], module.weight.shape[1])
