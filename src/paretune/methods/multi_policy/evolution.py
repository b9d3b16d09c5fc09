"""Evolution: generations of experts, varied by policy gradient and crossover, kept by what they add to the front."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.methods.multi_policy.rounds import assemble_set, set_stage
from paretune.methods.multi_policy.set_settings import GenerationSettings


@dataclass(frozen=True)
class EvolutionSettings(GenerationSettings):
    """Settings of `Evolution`, beside those of its generations. Untuned; docs/papers.md."""

    crossover: float = 0.2  # chance that an offspring has two parents
    weight_noise: float = 0.1  # standard deviation of what is added to objective weights, then put onto the simplex
    parameter_noise: float = 0.0  # standard deviation of noise on parameters, in shares of their root mean square

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.crossover <= 1:
            raise ConfigError(
                f"crossover must be a chance from 0 to 1, got {self.crossover}. Write 0 for never, 1 for always."
            )
        if not min(self.weight_noise, self.parameter_noise) >= 0:
            raise ConfigError(
                "weight_noise and parameter_noise must not be negative, got "
                f"{self.weight_noise} and {self.parameter_noise}. Write 0 for none."
            )


@method("evolution", "multi-policy")
class Evolution:
    """Evolve a set of policies: each generation trains offspring a little, measures, and keeps what the front needs.

    Every individual has objective weights of its own: those of its place in the generation, moved a little. It starts
    as a copy of the elite that serves them best, which learns on, or as the average of what that elite and another one
    add to the model. Then it is trained, all offspring of a generation in one batch. All that live are measured on
    fresh development prompts, the old ones again, so that nobody stays for having been lucky once; scores are what the
    task is judged on, `r_k - beta KL` or `r_k`. Preferences select from what is left at the end.

    Source:
        Kong et al. 2025 [3], evolution-guided policy gradient; Khadka and Tumer 2018; Beume et al. 2007 (SMS-EMOA) and
        Deb et al. 2002 (NSGA-II) for survival.

    Departures:
        - Policy gradient is the variation: published, it trains one member beside those that evolution varies.
        - Individuals are low-rank experts of one model; a child of two parents is the average of what both add to it,
          cut to their rank.
        - Objective weights vary too, and survival is by the front: the published fitness is one number.
        - Completions that measure are charged. The reasons, and what is measured of each, stand in docs/papers.md.
    """

    settings: EvolutionSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the one stage of the whole evolution; `preferences` play no part in it.

        Raises:
            BudgetError: If not even two individuals could be trained and measured.
        """
        run = "paretune.methods.multi_policy.evolution_run:evolve"
        return (set_stage("evolution", run, self.settings, task, budget, 2, seed, version=2),)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the member of the front that measured best."""
        return assemble_set(task, self.settings, preferences, results)
