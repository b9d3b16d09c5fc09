"""Evolution: generations of experts, varied by policy gradient and crossover, kept by what they add to the front."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from paretune.core.answers import Selected
from paretune.core.checks import check_choice
from paretune.core.errors import BudgetError, ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.methods.experts import ExpertSettings, adapters_of, expert_settings
from paretune.pareto.survival import RULES

FRONT = "front.json"  # the artefact that says who is left


@dataclass(frozen=True)
class EvolutionSettings(ExpertSettings):
    """Settings of `Evolution`, beside those of its experts. Untuned; docs/papers.md."""

    population: int = 5  # offspring of a generation, for: corners, centre, points between (two for two objectives)
    archive: int = 8  # most individuals that live on
    steps: int = 256  # completions that each offspring is trained with: four updates
    measured_each: int = 16  # development completions of each individual in each generation
    crossover: float = 0.2  # chance that an offspring has two parents
    weight_noise: float = 0.1  # standard deviation of what is added to objective weights, then put onto the simplex
    parameter_noise: float = 0.0  # standard deviation of what is added to parameters, in shares of their mean square
    survival: str = "hypervolume"  # or crowding
    doubt: float = 1.0  # standard errors that count as noise when individuals are compared; 0 believes every mean

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target_kl or self.advantages == "self_critical":
            raise ConfigError(
                "target_kl must be 0 and advantages other than self_critical where generations train, got "
                f"{self.target_kl} and '{self.advantages}': offspring of a few groups have no time to steer beta, and "
                "no completions to spare. Leave them out."
            )
        check_choice("survival", self.survival, RULES)
        if self.population < 2 or self.archive < 2:
            raise ConfigError(
                f"population and archive must be at least 2, got {self.population} and {self.archive}. Try 5 and 8."
            )
        if self.steps < 1 or self.steps % self.completions_per_update:
            raise ConfigError(
                f"steps must be a positive multiple of completions_per_update ({self.completions_per_update}), so that "
                f"offspring learn on where their parents stopped, got {self.steps}. Try "
                f"{2 * self.completions_per_update}."
            )
        if self.measured_each < 1 or self.measured_each % self.group_size:
            raise ConfigError(
                f"measured_each must be a positive multiple of group_size ({self.group_size}), so that budgets come "
                f"out even, got {self.measured_each}. Try {4 * self.group_size}."
            )
        if not 0 <= self.crossover <= 1:
            raise ConfigError(f"crossover must be a chance from 0 to 1, got {self.crossover}. Write 0 for none.")
        if not min(self.weight_noise, self.parameter_noise, self.doubt) >= 0:
            raise ConfigError(
                "weight_noise, parameter_noise and doubt must not be negative, got "
                f"{self.weight_noise}, {self.parameter_noise} and {self.doubt}. Write 0 for none."
            )


@method("evolution", "multi-policy")
class Evolution:
    """Evolve a set of policies: each generation trains offspring a little, measures, and keeps what the front needs.

    Every individual has objective weights of its own: those of its place in the generation, moved a little. It starts
    as a copy of the elite that serves them best, which learns on, or as the average of what that elite and another one
    add to the model. Then it is trained, all offspring of a generation in one batch. All that live are measured on
    fresh development prompts, the old ones again, so that nobody stays for having been lucky once; scores are means of
    `r_k - beta KL`, which is what is trained for. Preferences select from what is left at the end.

    Source:
        Kong et al. 2025 [3], evolution-guided policy gradient; Khadka and Tumer 2018; Beume et al. 2007 (SMS-EMOA) and
        Deb et al. 2002 (NSGA-II) for survival.

    Departures:
        See docs/papers.md: policy gradient is the variation, not a member; low-rank experts; measuring is charged.
    """

    settings: EvolutionSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the one stage of the whole evolution; `preferences` play no part in it.

        Raises:
            BudgetError: If not even two individuals could be trained and measured.
        """
        group = self.settings.group_size
        if budget < 4 * group:
            raise BudgetError(
                f"budget must give two individuals a group of {group} to train on and one to be measured with, "
                f"{4 * group} completions, got {budget}. Raise it."
            )
        run = "paretune.methods.multi_policy.evolution_run:evolve"
        return (
            Stage("evolution", run, expert_settings(self.settings), completions=budget // group * group, seed=seed),
        )

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the member of the highest measured utility."""
        (evolved,) = results.values()
        kept = json.loads(evolved.artefacts[FRONT].read_text(encoding="utf-8"))
        scores = np.asarray([each["scores"] for each in kept["front"]], dtype=np.float64)
        return Assembly(adapters_of([evolved]), Selected(scores), notes=kept)


def cost(settings: EvolutionSettings, generation: int) -> int:
    """Return the completions of a generation: offspring are trained, and measured like those that live already."""
    living = min(settings.archive, settings.population * generation)
    return settings.population * (settings.steps + settings.measured_each) + living * settings.measured_each


def whole_generations(settings: EvolutionSettings, length: int) -> int:
    """Return how many generations a length has room for, with a last measurement of all that live then."""
    count, spent = 0, cost(settings, 0)
    while spent + min(settings.archive, settings.population * (count + 1)) * settings.measured_each <= length:
        count += 1
        spent += cost(settings, count)
    return count
