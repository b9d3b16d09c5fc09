"""Who learns: a population of experts, or one policy whose rows carry their own preferences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from paretune.core.answers import Answer, Combined, answered
from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError, ShapeError
from paretune.core.ledger import Ledger
from paretune.core.preference_text import in_tenths
from paretune.core.preferences import FloatArray
from paretune.core.seeds import stream_key
from paretune.models.bank import ExpertBank
from paretune.models.gate import TrainedGate
from paretune.models.mixing import Mixing
from paretune.rl.gate_terms import GateTerms, Heard
from paretune.rl.preference_draws import UNIFORM, check_draw, drawn_preferences
from paretune.rl.settings import TRAINS


@dataclass(eq=False)
class Member:
    """One run of training: an expert of a population, or a policy with its bank and gate.

    Attributes:
        objective_weights: What it is trained for, `[K]`, sum 1; for a policy whose rows carry their own preferences,
            their mean.
        seed: Training seed: prompt order, noise, preferences, and start where nothing else is said.
        lengths: Planned lengths in completions at which it is handed over, ascending.
        ledger: What it spends.
        prompts: Numbers of the training prompts that it visits; None for all of them.
    """

    objective_weights: FloatArray
    seed: int
    lengths: tuple[int, ...]
    ledger: Ledger
    prompts: tuple[int, ...] | None = None


class Trainee(Protocol):
    """Who learns. Its parameters are named matrices of one row per member, which optimisers change in place.

    Attributes:
        bank: Experts over the base model.
        members: M of them.
        parameters: Name -> `[M, P]`.
        learning_rates: Name -> learning rate, where a group has one of its own.
        conditioned: Whether the rows of one member have different preferences.
        read_per_token: Parameters of a member that each token is read with, trained or not.
        prompt_passes: How often the base model alone reads each prompt before, for a gate that weighs by its states.
        gate_terms: Terms of the loss that are about a gate's weights; None where there are none.
    """

    bank: ExpertBank
    members: tuple[Member, ...]
    parameters: Mapping[str, Tensor]
    learning_rates: Mapping[str, float]
    conditioned: bool
    gate_terms: GateTerms | None

    def hear(self) -> Heard:
        """Return who hears of a gate's weights in one pass, for its terms of the loss."""
        ...

    @property
    def read_per_token(self) -> int:
        """Parameters of a member that each token is read with."""
        ...

    @property
    def prompt_passes(self) -> int:
        """Passes of the base model alone over each prompt."""
        ...

    def preferences(self, member: int, update: int, groups: int, again: int = 0) -> FloatArray:
        """Return what the completions of each prompt of an update are for, `[groups, K]`, the first ones first.

        Args:
            member: Whose they are.
            update: Number of the update.
            groups: Prompts.
            again: 0 for those that are sampled; else which step learns from earlier completions again, from 1 on.
        """
        ...

    def mixing(
        self, members: Sequence[int], preferences: FloatArray, prompts: Sequence[Sequence[int]]
    ) -> Mixing:  # fmt: skip
        """Return how experts are mixed in rows of some members, adapter-major.

        Args:
            members: Whose rows they are.
            preferences: Of the rows, `[B, K]`.
            prompts: Token ids of the rows' prompts.
        """
        ...

    def take_gradients(self, members: Sequence[int]) -> dict[str, Tensor]:
        """Return what backward passes have added up, name -> `[len(members), P]`, and start again from zero."""
        ...


class Population:
    """Experts that share every pass, adapter-major: each its own objective weights, seed and lengths."""

    conditioned = False
    prompt_passes = 0
    gate_terms: GateTerms | None = None

    def hear(self) -> Heard:
        """Refuse: there is no gate.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError("a population must be trained without terms of a gate, got some. It has no gate.")

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

    @property
    def read_per_token(self) -> int:
        """Parameters of one expert."""
        return self.bank.parameters_each()

    def preferences(self, member: int, update: int, groups: int, again: int = 0) -> FloatArray:
        """Return the member's objective weights for every prompt."""
        del update, again
        return np.tile(self.members[member].objective_weights, (groups, 1))

    def mixing(
        self, members: Sequence[int], preferences: FloatArray, prompts: Sequence[Sequence[int]]
    ) -> Mixing:  # fmt: skip
        """Return blocks of rows that belong to one expert each."""
        del prompts
        return Mixing.population(self.bank.experts, len(preferences) // len(members), tuple(members))

    def take_gradients(self, members: Sequence[int]) -> dict[str, Tensor]:
        """Return the gradients of the members' experts."""
        return {"experts": self.bank.take_gradients()[list(members)]}


class Conditioned:
    """One policy: all experts of a bank and a gate, trained on preferences drawn for each prompt.

    A row of preference w mixes the experts as the prior says, `g = w @ prior`, or with what the gate makes of that
    where there is one. Experts and gate learn together, or one of them while the other stays as it is.
    """

    conditioned = True

    def __init__(
        self,
        bank: ExpertBank,
        gate: TrainedGate | None,
        prior: FloatArray | Answer,
        seed: int,
        lengths: tuple[int, ...],
        ledger: Ledger,
        gate_learning_rate: float | None = None,
        trains: str = "both",
        gate_terms: GateTerms | None = None,
        draw: str = UNIFORM,
        preference: FloatArray | None = None,
    ) -> None:
        """Train a bank and a gate as one policy.

        Args:
            bank: E experts.
            gate: What weighs them, beginning as the prior; None for the prior alone.
            prior: Expert weights at each corner of the simplex, `[K, E]`, between which they are linear; or what else
                answers a preference with them.
            seed: Of prompts, noise and preferences.
            lengths: Planned lengths in completions, ascending.
            ledger: What it spends.
            gate_learning_rate: Where the gate has one of its own.
            trains: Which of both learns, one of `TRAINS`; the other is in no optimiser and in no average.
            gate_terms: Terms of the loss that are about the gate's weights.
            draw: How preferences are drawn, one of `preference_draws.DRAWS`.
            preference: The one that all prompts are for, `[K]`, in the place of a draw.

        Raises:
            ShapeError: If the prior is not for the bank's experts.
            ConfigError: If a gate is to learn and there is none, terms are asked of one that cannot have them, or
                preferences are to be drawn in a way of their own beside the one that all prompts are for.
        """
        check_choice("trains", trains, TRAINS)
        check_draw(draw, preference)
        answer = Combined(prior) if isinstance(prior, np.ndarray) else prior
        if answer.experts != bank.experts:
            raise ShapeError(
                f"prior must be [K, E] for the {bank.experts} experts, got shape "
                f"{[answer.objectives, answer.experts]}. Weigh all experts at each corner."
            )
        if trains == "gate" and gate is None:
            raise ConfigError("trains must not be 'gate' without a gate, got none. Name a gate, or train the experts.")
        if gate_terms is not None and (gate is None or trains == "experts"):
            raise ConfigError("terms of a gate must be of one that learns, got none. Set gate_kl and the others to 0.")
        if gate_terms is not None and getattr(bank.base.model, "is_activation_checkpointing", False):
            raise ConfigError(
                "terms of a gate must be made of weights that are kept, got a model that recomputes its blocks. Turn "
                "gradient checkpointing off, or set gate_kl and the others to 0."
            )
        self.gate_terms = gate_terms
        self.bank, self.gate, self.prior, self.draw, self.preference = bank, gate, answer, draw, preference
        mean = np.full(answer.objectives, 1 / answer.objectives) if preference is None else preference
        self.members: tuple[Member, ...] = (Member(mean, seed, lengths, ledger),)
        self.parameters: Mapping[str, Tensor] = {} if trains == "gate" else {"bank": bank.flat.view(1, -1)}
        self.learning_rates: Mapping[str, float] = {}
        frozen = bank.expert_parameters() if trains == "gate" else []
        if gate is not None and trains == "experts":
            frozen = gate.parameters()
        elif gate is not None:
            self.parameters = {**self.parameters, "gate": gate.flat}
            if gate_learning_rate is not None:
                self.learning_rates = {"gate": gate_learning_rate}
        for parameter in frozen:  # no backward pass computes what nobody takes
            parameter.requires_grad_(False)

    def hear(self) -> Heard:
        """Return who hears of the gate's weights in one pass.

        Raises:
            ConfigError: If there is nobody to hear of, or nothing to make of it.
        """
        if self.gate is None or self.gate_terms is None:
            raise ConfigError("a policy whose gate is heard must have one, and terms of it, got none. Give it both.")
        return Heard(self.gate, self.gate_terms)

    @property
    def read_per_token(self) -> int:
        """Parameters of all experts, and of a gate that reads tokens."""
        by_token = self.gate is not None and self.gate.level != "prompt"
        return self.bank.flat.numel() + (self.gate.flat.numel() if self.gate is not None and by_token else 0)

    @property
    def prompt_passes(self) -> int:
        """One where the gate weighs by the states of prompts."""
        return 0 if self.gate is None else self.gate.prompt_passes

    def preferences(self, member: int, update: int, groups: int, again: int = 0) -> FloatArray:
        """Draw from the simplex; unless draws are to lie evenly, fewer prompts see the first of them."""
        own = self.members[member]
        if self.preference is not None:
            return np.tile(self.preference, (groups, 1))
        seed = stream_key(own.seed, "again", again) if again else own.seed
        return drawn_preferences(self.draw, len(own.objective_weights), seed, update, groups)

    def mixing(
        self, members: Sequence[int], preferences: FloatArray, prompts: Sequence[Sequence[int]]
    ) -> Mixing:  # fmt: skip
        """Return the prior of every row, with the gate where there is one."""
        device = self.bank.base.device
        prior = torch.tensor(answered(self.prior, preferences)[0], dtype=torch.float32, device=device)
        if self.gate is None:
            return Mixing.of_rows(prior)
        return self.gate.mixing(prior, torch.tensor(preferences, dtype=torch.float32, device=device), prompts)

    def take_gradients(self, members: Sequence[int]) -> dict[str, Tensor]:
        """Return the gradients of bank and gate, of what learns."""
        gradients = {}
        if "bank" in self.parameters:
            gradients["bank"] = self.bank.take_gradients().view(1, -1)
        if self.gate is not None and "gate" in self.parameters:
            gradients["gate"] = self.gate.take_gradients()
        return gradients


class Told(Conditioned):
    """One expert as one policy that reads each prompt's preference in the prompt, in tenths."""

    def __init__(self, bank: ExpertBank, objectives: int, seed: int, lengths: tuple[int, ...], ledger: Ledger) -> None:
        """Train the one expert of a bank for K objectives."""
        super().__init__(bank, None, np.ones((objectives, bank.experts)), seed, lengths, ledger)

    def preferences(self, member: int, update: int, groups: int, again: int = 0) -> FloatArray:
        """Draw from the simplex and round to tenths: what is written is what the objectives are weighed with."""
        return in_tenths(super().preferences(member, update, groups, again))
