"""A gate over several sets of the experts that it was trained for: a policy that was adapted has a set of its own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from paretune.core.errors import AdapterError
from paretune.models.bank import ExpertBank
from paretune.models.gate import GateLevel, TrainedGate, load_gate
from paretune.models.mixing import Mixing, selected


class GateOfSets:
    """Weighs the experts of one set a row as its gate does, and none of the other sets.

    A bank of S sets has S E experts. Which set a row is answered by, its prior says: it weighs experts of that one
    alone. Such a gate is served, never trained.

    Attributes:
        gate: What weighs the E experts of a set.
        sets: Number of sets S.
    """

    def __init__(self, gate: TrainedGate, sets: int) -> None:
        self.gate, self.sets = gate, sets
        self.experts, self.objectives, self.blocks = sets * gate.experts, gate.objectives, gate.blocks
        self.level: GateLevel = gate.level
        self.reads_block, self.prompt_passes, self.flat = gate.reads_block, gate.prompt_passes, gate.flat

    def mixing(
        self,
        prior: Tensor,
        preferences: Tensor,
        prompts: Sequence[Sequence[int]] | None = None,
        scale: Tensor | None = None,
    ) -> Mixing:
        """Return the mixing of some rows under the gate; see `TrainedGate.mixing`.

        Args:
            prior: Expert weights of the rows without it, `[B, S E]`.
            preferences: Of the rows, `[B, K]`.
            prompts: Token ids of the rows' prompts; needed where the gate reads them.
            scale: What multiplies all weights of a row, `[B]`, or each of them, `[B, S E]`.
        """
        own = self.gate.mixing(self._own(prior)[0], preferences, prompts)
        gate, row_gate = (None if each is None else self for each in (own.gate, own.row_gate))
        return replace(own, experts=self.experts, expert_weights=prior, gate=gate, row_gate=row_gate, scale=scale)

    def weights(self, block: int, hidden: Tensor, prior: Tensor, preferences: Tensor) -> Tensor:
        """Return g for the tokens of one block, `[B, T, S E]`; see `Gate.weights`."""
        own, place = self._own(prior)
        return self._spread(self.gate.weights(block, hidden, own, preferences), place)

    def row_weights(self, context: Tensor, prior: Tensor, preferences: Tensor) -> Tensor:
        """Return g for rows, `[B, S E]`; see `RowGate.row_weights`."""
        own, place = self._own(prior)
        return self._spread(self.gate.row_weights(context, own, preferences), place)

    def _own(self, prior: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights of each row in its own set, `[B, E]`, and which set that is, `[B]`."""
        by_set = prior.unflatten(1, (self.sets, -1))
        return by_set.sum(dim=1), (by_set != 0).any(dim=2).int().argmax(dim=1)

    def _spread(self, weights: Tensor, place: Tensor) -> Tensor:
        """Put weights `[B, ..., E]` where the set of each row lies, `[B, ..., S E]`, selected among their own."""
        chosen = selected(self.gate, weights)
        there = torch.nn.functional.one_hot(place, self.sets).to(chosen)
        spread = there.view(len(place), *[1] * (chosen.ndim - 2), self.sets, 1) * chosen[..., None, :]
        return spread.flatten(-2)


def load_gate_of(bank: ExpertBank, path: Path, sets: int) -> TrainedGate | GateOfSets:
    """Read the gate of a bank whose experts are some number of sets, each as many as the gate weighs.

    Raises:
        AdapterError: If the bank cannot be divided into so many, or `load_gate` finds something wrong.
    """
    if sets == 1:
        return load_gate(bank, path)
    if bank.experts % sets:
        raise AdapterError(
            f"experts must be {sets} sets of equally many, got {bank.experts}. Load those that the gate '{path}' was "
            "saved with."
        )
    one = copy.copy(bank)  # a gate asks of a bank how many experts there are, beside what its base model is
    one.experts = bank.experts // sets
    return GateOfSets(load_gate(one, path), sets)


def gate_class(path: Path) -> str:
    """Return the `module:Class` of a gate that `TrainedGate.save` wrote, as its file says.

    Raises:
        AdapterError: If the file is missing, damaged or no gate's.
    """
    try:
        with safe_open(path, framework="pt") as file:
            name = (file.metadata() or {}).get("class")
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"gate '{path}' must be readable, got: {error}. Copy or train it again.") from error
    if name is None:
        raise AdapterError(f"gate '{path}' must be a gate's file, got no 'class' in it. Name its file.")
    return str(name)
