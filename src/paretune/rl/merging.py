"""A learner whose members are averaged every few updates and go on from the average."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from paretune.core.errors import ConfigError, ShapeError
from paretune.models.low_rank import average_experts
from paretune.rl.checkpoints import State
from paretune.rl.learner import HandOver, Learner
from paretune.rl.lengths import Update
from paretune.rl.rollouts import Environment
from paretune.rl.settings import LearnerSettings
from paretune.rl.trainees import Population


class MergingLearner(Learner):
    """Trains experts of equal lengths together; between rounds of updates each becomes the average of all deltas.

    A length that ends with a round ends before the average: what is handed over are always experts of their own.

    Attributes:
        discarded: For each average, the share of its energy that the experts' rank has no room for.
        merged: The number of updates before which they were averaged last; 0 for never.
    """

    def __init__(
        self, trainee: Population, environment: Environment, settings: LearnerSettings, merge_every: int
    ) -> None:
        """Prepare training.

        Args:
            trainee: Experts; all have the same planned lengths, and the same alpha.
            environment: Prompts and rewards.
            settings: How they learn.
            merge_every: Updates of a round.

        Raises:
            ConfigError: If a round is no update.
            ShapeError: If experts are planned for different lengths, or scaled differently.
        """
        if merge_every < 1:
            raise ConfigError(f"merge_every must be at least 1 update, got {merge_every}. Try 8.")
        lengths, alphas = {member.lengths for member in trainee.members}, {*trainee.bank.alphas.tolist()}
        if len(lengths) > 1 or len(alphas) > 1:
            name, found = ("lengths", lengths) if len(lengths) > 1 else ("alphas", alphas)
            raise ShapeError(
                f"experts must be averaged with equal {name}, got {sorted(found)}. Train the others on their own."
            )
        super().__init__(trainee, environment, settings)
        self.merge_every, self.merged = merge_every, 0
        self.discarded: list[float] = []

    def update(self, hand_over: HandOver, on_update: Callable[[Mapping[str, object]], None]) -> bool:
        """Average the experts where a round is over and more follows; then make the coming update."""
        done = self.lengths[0].updates
        if done and done % self.merge_every == 0 and self.merged < done:
            planned, length = self.lengths[0].planned, self.lengths[0].done
            if length in planned and length not in self.lengths[0].handed_over:
                due = [(index, length) for index in range(len(self.members))]
                self._reach(due, Update(0, 0), length == max(planned), hand_over, on_update)
            if length < max(planned):
                self._merge(done)
        return super().update(hand_over, on_update)

    @torch.no_grad()
    def _merge(self, done: int) -> None:
        bank = self.trainee.bank
        layers = [(layer.in_features, layer.out_features) for layer in bank.layers.values()]
        average, lost = average_experts(bank.flat.detach().cpu(), layers, bank.rank)
        bank.flat.copy_(average.to(bank.flat.device).expand_as(bank.flat))
        for name, optimiser in self.parameter_groups.optimisers.items():  # moments of factors that are gone
            for moments in (optimiser.mean, optimiser.square, optimiser.steps):
                moments.zero_()
            if optimiser.average is not None:
                optimiser.average.copy_(self.trainee.parameters[name])
        self.merged = done
        self.discarded = [*self.discarded, lost]

    def whole_state(self) -> State:
        """Return the states of all members at their last whole update, from which a longer run can go on."""
        tensors, members = {}, []
        for index in range(len(self.members)):
            own, plain = self.member_state(index)
            tensors.update({f"{index}/{name}": tensor for name, tensor in own.items()})
            members.append(plain)
        return tensors, {"members": members}

    def load_whole_state(self, tensors: Mapping[str, torch.Tensor], plain: Mapping[str, Any]) -> None:
        """Start all members where a shorter run stood at its last whole update."""
        for index, own in enumerate(plain["members"]):
            start = f"{index}/"
            mine = {name.removeprefix(start): each for name, each in tensors.items() if name.startswith(start)}
            self.load_member_state(index, mine, own)

    def _plain(self, index: int) -> dict[str, Any]:
        return {**super()._plain(index), "merged": self.merged, "discarded": list(self.discarded)}

    def _take_over(self, index: int, tensors: Mapping[str, torch.Tensor], saved: Mapping[str, Any]) -> None:
        super()._take_over(index, tensors, saved)
        self.merged, self.discarded = saved["merged"], list(saved["discarded"])
