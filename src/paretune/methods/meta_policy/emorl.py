"""EMORL: one expert per objective, and expert weights that a hierarchical grid search found on development prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from paretune.core.answers import Answer, Combined
from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError
from paretune.core.model_config import check_block_of
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, Level, Mixer, method
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.methods.experts import PLANNING, adapters_of, left_by, weighed
from paretune.methods.hierarchical_grid import Space
from paretune.methods.meta_policy.lower_level import CombiningSettings
from paretune.methods.searches import check_mixable, read_search, search_stage

Mode = Literal["repaired", "faithful"]


@dataclass(frozen=True)
class EMORLSettings(CombiningSettings):
    """Settings of `EMORL`, beside those of its experts, which are the same whatever these say."""

    mode: Mode = field(default="repaired", metadata=PLANNING)
    level: Level | None = field(default=None, metadata=PLANNING)  # None: adapters if repaired, hidden if faithful
    block: int | None = field(default=None, metadata=PLANNING)  # at level hidden; None: the last, as published
    rounds: int = field(default=5, metadata=PLANNING)  # published; fewer where the budget does not give them
    measured_each: int = field(default=32, metadata=PLANNING)  # completions of a candidate; published
    search_share: float = field(default=0.25, metadata=PLANNING)  # of the budget at most; published 4,320 of 17,529

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("mode", self.mode, get_args(Mode))
        if self.level is not None:
            check_choice("level", self.level, get_args(Level))
            if self.level == "probabilities" and self.mode == "faithful":
                raise ConfigError(
                    "level must not be 'probabilities' in mode 'faithful', which searches weights that are no "
                    "distribution. Search in mode 'repaired', or mix log-probabilities."
                )
        if self.block is not None and self.mixed_at != "hidden":
            raise ConfigError(
                f"block must be named at level 'hidden' alone, got {self.block} at '{self.mixed_at}'. Leave it out."
            )
        for name in ("rounds", "measured_each"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}. Leave it out.")
        if not 0 < self.search_share < 1:
            raise ConfigError(f"search_share must lie between 0 and 1, got {self.search_share}. Try 0.25.")

    @property
    def mixed_at(self) -> Level:
        """Where experts are mixed."""
        return self.level or ("adapters" if self.mode == "repaired" else "hidden")


@method("emorl", "meta-policy")
class EMORL:
    """Train one expert per objective, then search the weights to mix them with.

    `repaired`: for every preference given, weights on the simplex that measure best for it; the preference itself is
    among the candidates. `faithful`: one vector of weights for everybody, each weight in [0, 1], that measures best for
    the plain mean of all objectives. Both measure what the task is judged on.

    Source:
        Kong et al. 2025, EMORL: Ensemble multi-objective reinforcement learning.

    Departures:
        See docs/papers.md.
    """

    settings: EMORLSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the experts, by default one per objective, and the search.

        Raises:
            BudgetError: If an expert would get less than one group, or a mixture no completion to be measured with.
            ConfigError: If probabilities are to be mixed of experts whose prior is no distribution for a preference.
            ModelError: If hidden states of the task's model are to be mixed and cannot be, or it has no such block.
        """
        settings, objectives = self.settings, len(task.objectives)
        if settings.mixed_at == "hidden":
            check_block_of(task.model, settings.block)
        space = self.space(preferences, objectives)
        rounds, evaluations, each = space.affordable(
            settings.rounds,
            settings.measured_each,
            int(settings.search_share * budget),
            len(task.development_rows()),
        )
        left = budget - evaluations * each
        with left_by("search_share", left, budget):
            experts = settings.expert_kind.stages(settings, task, left, seed)
        return (
            *experts,
            search_stage(
                experts, space, rounds, evaluations, each, settings.mixed_at, settings.block, seed, task.judged_on
            ),
        )

    def space(self, preferences: FloatArray, objectives: int) -> Space:
        """Return what is searched for preferences `[M, K]`: weights of all experts, whatever they were trained for.

        Raises:
            ConfigError: If the preferences' own weights are searched from and cannot be mixed at the settings' level.
        """
        prior = self.settings.expert_kind.prior(objectives)
        if self.settings.mode == "repaired":
            own = weighed(preferences, prior)
            check_mixable(self.settings.mixed_at, own)
            return Space(prior.shape[1], preferences, simplex=True, first_candidates=own)
        return Space(
            prior.shape[1],
            np.full((1, objectives), 1 / objectives),
            simplex=False,
            first_candidates=np.zeros((0, prior.shape[1])),
        )

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the mixture that measured best for the preference, or for the plain mean."""
        table = read_search(task, results.values())
        answer: Answer = table.found
        if self.settings.mode == "faithful":
            count = table.found.objectives
            best, _ = table.found.weights(np.full((1, count), 1 / count))
            answer = Combined(np.tile(best, (count, 1)))  # the same for every preference
        experts = (result for result in results.values() if result is not table.search)
        mixer = Mixer(self.settings.mixed_at, self.settings.block)
        return Assembly(adapters_of(experts), answer, mixer, notes={"search": table.plain})
