"""Prediction-guided: who learns on, and for which weights, is chosen by the hypervolume it is expected to add."""

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
class PredictionGuidedSettings(GenerationSettings):
    """Settings of `PredictionGuided`, beside those of its generations. Untuned; docs/papers.md."""

    directions: int = 11  # weights that each policy may learn on for: corners, centre, points of finer and finer grids
    draws: int = 8  # of what training may gain, over which the added hypervolume is averaged; 0: its prediction alone

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.directions < self.population:
            raise ConfigError(
                f"directions must be at least the population ({self.population}), got {self.directions}. Try 11."
            )
        if self.draws < 0:
            raise ConfigError(f"draws must not be negative, got {self.draws}. Write 0 for the prediction alone.")


@method("prediction_guided", "multi-policy")
class PredictionGuided:
    """Let a set of policies learn on, generation by generation, where that is expected to add most hypervolume.

    The first generation is trained for corners, centre and points between. From every step since, a Gaussian process
    learns what a policy of some scores gains by learning for some weights. The pairs of policy and weights that are
    expected to add most hypervolume together are trained next. While that process predicts no better than "no change",
    those that contribute most hypervolume learn on for their own weights. All that live are measured again on fresh
    development prompts, and preferences select from what is left at the end.

    Source:
        Xu et al. 2020, Prediction-guided multi-objective reinforcement learning for continuous robot control (PGMORL).

    Departures:
        - A Gaussian process predicts gains, with its uncertainty: published, a hyperbolic curve for each policy.
        - While it predicts no better than "no change", contributions to the hypervolume choose.
        - A small archive that knows of noise, in the place of performance bins. The reasons stand in docs/papers.md.
    """

    settings: PredictionGuidedSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the one stage of all generations; `preferences` play no part in it.

        Raises:
            BudgetError: If not even two individuals could be trained and measured.
        """
        run = "paretune.methods.multi_policy.prediction_run:guide"
        return (set_stage("prediction", run, self.settings, task, budget, 2, seed, version=3),)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the member of the front that measured best."""
        return assemble_set(task, self.settings, preferences, results)
