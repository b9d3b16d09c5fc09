"""Who learns: a population of experts, or one policy whose rows carry their own preferences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from paretune.core.errors import ShapeError
from paretune.core.ledger import Ledger
from paretune.core.preference_text import in_tenths
from paretune.core.preferences import FloatArray
from paretune.core.seeds import generator
from paretune.models.bank import ExpertBank
from paretune.models.gate import TrainedGate
from paretune.models.mixing import Mixing


@dataclass(eq=False)
class Member:
    """One run of training: an expert of a population, or a policy with its bank and gate.

    Attributes:
        objective_weights: What it is trained for, `[K]`, sum 1; for a policy whose rows carry their own preferences,
            their mean.
        seed: Training seed: prompt order, noise, preferences, and start where nothing else is said.
        lengths: Planned lengths in completions at which it is handed over, ascending.
        ledger: What it spends.
    """

    objective_weights: FloatArray
    seed: int
    lengths: tuple[int, ...]
    ledger: Ledger


class Trainee(Protocol):
    """Who learns. Its parameters are named matrices of one row per member, which optimisers change in place.

    Attributes:
        bank: Experts over the base model.
        members: M of them.
        parameters: Name -> `[M, P]`.
        learning_rates: Name -> learning rate, where a group has one of its own.
        conditioned: Whether the rows of one member have different preferences.
    """

    bank: ExpertBank
    members: tuple[Member, ...]
    parameters: Mapping[str, Tensor]
    learning_rates: Mapping[str, float]
    conditioned: bool

    def preferences(self, member: int, update: int, groups: int) -> FloatArray:
        """Return what the completions of each prompt of an update are for, `[groups, K]`, the first ones first."""
        ...

    def mixing(self, members: Sequence[int], preferences: FloatArray) -> Mixing:
        """Return how experts are mixed in rows of some members, adapter-major, with preferences `[B, K]`."""
        ...

    def take_gradients(self, members: Sequence[int]) -> dict[str, Tensor]:
        """Return what backward passes have added up, name -> `[len(members), P]`, and start again from zero."""
        ...


class Population:
    """Experts that share every pass, adapter-major: each its own objective weights, seed and lengths."""

    conditioned = False

    def __init__(self, bank: ExpertBank, members: Sequence[Member]) -> None:
        """Train each expert of a bank as one member.

        Raises:
            ShapeError: If the bank does not have one expert per member.
        """
        if bank.experts != len(members):
            raise ShapeError(
                f"bank must have one expert per member ({len(members)}), got {bank.experts}. Make it for these members."
            )
        self.bank, self.members = bank, tuple(members)
        self.parameters: Mapping[str, Tensor] = {"experts": bank.flat}
        self.learning_rates: Mapping[str, float] = {}

    def preferences(self, member: int, update: int, groups: int) -> FloatArray:
        """Return the member's objective weights for every prompt."""
        del update
        return np.tile(self.members[member].objective_weights, (groups, 1))

    def mixing(self, members: Sequence[int], preferences: FloatArray) -> Mixing:
        """Return blocks of rows that belong to one expert each."""
        return Mixing.population(self.bank.experts, len(preferences) // len(members), tuple(members))

    def take_gradients(self, members: Sequence[int]) -> dict[str, Tensor]:
        """Return the gradients of the members' experts."""
        return {"experts": self.bank.take_gradients()[list(members)]}


class Conditioned:
    """One policy: all experts of a bank and a gate, trained together on preferences drawn for each prompt.

    A row of preference w mixes the experts with `g = w @ prior`, plus what the gate adds where there is one.
    """

    conditioned = True

    def __init__(
        self,
        bank: ExpertBank,
        gate: TrainedGate | None,
        prior: FloatArray,
        seed: int,
        lengths: tuple[int, ...],
        ledger: Ledger,
        gate_learning_rate: float | None = None,
    ) -> None:
        """Train a bank and a gate as one policy.

        Args:
            bank: E experts.
            gate: What it adds to the prior, block by block; None for the prior alone.
            prior: Expert weights at each corner of the simplex, `[K, E]`.
            seed: Of prompts, noise and preferences.
            lengths: Planned lengths in completions, ascending.
            ledger: What it spends.
            gate_learning_rate: Where the gate has one of its own.

        Raises:
            ShapeError: If the prior is not for the bank's experts.
        """
        if prior.ndim != 2 or prior.shape[1] != bank.experts:
            raise ShapeError(
                f"prior must be [K, E] for the {bank.experts} experts, got shape {list(prior.shape)}. Weigh all "
                "experts at each corner."
            )
        objectives = len(prior)
        self.bank, self.gate, self.prior = bank, gate, prior
        own = Member(np.full(objectives, 1 / objectives), seed, lengths, ledger)
        self.members: tuple[Member, ...] = (own,)
        self.parameters: Mapping[str, Tensor] = {"bank": bank.flat.view(1, -1)}
        self.learning_rates: Mapping[str, float] = {}
        if gate is not None:
            self.parameters = {**self.parameters, "gate": gate.flat}
            if gate_learning_rate is not None:
                self.learning_rates = {"gate": gate_learning_rate}

    def preferences(self, member: int, update: int, groups: int) -> FloatArray:
        """Draw uniformly from the simplex, for each prompt by its own number: fewer prompts see the first draws."""
        own = self.members[member]
        alpha = np.ones(len(own.objective_weights))
        return np.stack([generator(own.seed, "preference", update, group).dirichlet(alpha) for group in range(groups)])

    def mixing(self, members: Sequence[int], preferences: FloatArray) -> Mixing:
        """Return the prior of every row, with the gate where there is one."""
        device = self.bank.base.device
        prior = torch.tensor(preferences @ self.prior, dtype=torch.float32, device=device)
        if self.gate is None:
            return Mixing.of_rows(prior)
        return Mixing.gated(prior, self.gate, torch.tensor(preferences, dtype=torch.float32, device=device))

    def take_gradients(self, members: Sequence[int]) -> dict[str, Tensor]:
        """Return the gradients of bank and gate."""
        gradients = {"bank": self.bank.take_gradients().view(1, -1)}
        return gradients if self.gate is None else {**gradients, "gate": self.gate.take_gradients()}


class Told(Conditioned):
    """One expert as one policy that reads each prompt's preference in the prompt, in tenths."""

    def __init__(self, bank: ExpertBank, objectives: int, seed: int, lengths: tuple[int, ...], ledger: Ledger) -> None:
        """Train the one expert of a bank for K objectives."""
        super().__init__(bank, None, np.ones((objectives, bank.experts)), seed, lengths, ledger)

    def preferences(self, member: int, update: int, groups: int) -> FloatArray:
        """Draw from the simplex and round to tenths: what is written is what the objectives are weighed with."""
        return in_tenths(super().preferences(member, update, groups))
