"""The run function of an evolution: how offspring are bred from elites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from paretune.core.preferences import FloatArray, onto_simplex
from paretune.core.seeds import generator
from paretune.core.stages import Stage, StageContext
from paretune.methods.experts import settings_of
from paretune.methods.multi_policy.evolution import EvolutionSettings
from paretune.methods.multi_policy.generations import Generations, starting_weights
from paretune.methods.multi_policy.individuals import Individual
from paretune.methods.multi_policy.members import Members
from paretune.methods.multi_policy.rounds import Found, run_rounds

if TYPE_CHECKING:
    from torch import Tensor

PARAMETERS = ("experts.parameters", "experts.average")  # in a learner's state


def evolve(context: StageContext) -> None:
    """Evolve a set of policies for each trajectory; see `rounds.run_rounds` for what it leaves."""
    run_rounds(context, prepared)


def prepared(context: StageContext, stage: Stage) -> Generations:
    """Return the generations of the trajectory whose longest stage is given."""
    settings = settings_of(EvolutionSettings, stage)
    members = Members(context, stage, settings)
    return Generations(members, settings, Breeding(members, settings).offspring)


class Breeding:
    """How offspring come from elites; every draw is a function of seed, generation and place."""

    def __init__(self, members: Members, settings: EvolutionSettings) -> None:
        self.members, self.settings = members, settings

    def offspring(self, found: Found, generation: int) -> list[Individual]:
        """Return untrained individuals.

        Each place of a generation has objective weights of its own, the same in all generations, moved a little for
        each individual. Its parent is the elite that would serve these weights best, with the benefit of the doubt.
        """
        rows = starting_weights(len(self.members.task.objectives), self.settings.population)
        first = len(found.lineage)
        return [self._child(found.living, row, generation, place, first + place) for place, row in enumerate(rows)]

    def _child(
        self, elites: Sequence[Individual], weights: FloatArray, generation: int, place: int, number: int
    ) -> Individual:
        draws = generator(self.members.seed, "evolution", generation, "offspring", place)
        noise = self.settings.weight_noise * draws.standard_normal(len(weights))
        moved = onto_simplex((weights + noise)[None])[0]
        best = self._best(elites, moved)
        parents = [elites[best]]
        if len(elites) > 1 and draws.random() < self.settings.crossover:
            parents.append(elites[(best + 1 + int(draws.integers(len(elites) - 1))) % len(elites)])
        operation = "training" if len(parents) == 1 else "crossover"
        born = parents[0].child(number, generation, operation, [each.number for each in parents], moved)
        if len(parents) == 2:
            born = replace(born, learner={}, parameters=self._average(parents, born))
        return self._shaken(born, draws) if self.settings.parameter_noise else born

    def _best(self, elites: Sequence[Individual], weights: FloatArray) -> int:
        """Return which elite has the highest measured utility, `doubt` standard errors added."""
        utility = self.members.scores(elites) @ weights
        hopeful = utility + self.settings.doubt * np.sqrt(self.members.errors(elites) ** 2 @ weights**2)
        return 0 if np.isnan(hopeful).all() else int(np.nanargmax(hopeful.round(12)))

    def _average(self, parents: Sequence[Individual], born: Individual) -> Tensor:
        """Return the average of what two individuals add to the model, cut to their rank; what that loses is logged."""
        import torch

        from paretune.models.low_rank import average_experts

        bank = self.members.bank(parents)
        layers = [(layer.in_features, layer.out_features) for layer in bank.layers.values()]
        bank.unwrap()
        rows = torch.stack([each.trained for each in parents])
        average, lost = average_experts(rows, layers, self.settings.rank)
        self.members.log({**born.origin(), "discarded_energy": lost}, born.generation)
        return average

    def _shaken(self, born: Individual, draws: np.random.Generator) -> Individual:
        """Add noise to its parameters, and to those that its learner goes on from."""
        import torch

        spread = self.settings.parameter_noise * float(born.trained.square().mean().sqrt())
        noise = torch.from_numpy(draws.standard_normal(len(born.trained)) * spread).to(born.trained.dtype)
        learner = {name: each + noise if name in PARAMETERS else each for name, each in born.learner.items()}
        return replace(born, parameters=born.trained + noise, learner=learner)
