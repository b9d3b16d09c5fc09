"""Searched soups: experts, then a search for the weights that measure best for each preference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, Mixer, method
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.methods.experts import adapters_of, left_by
from paretune.methods.meta_policy.lower_level.averaged import AveragedSettings
from paretune.methods.meta_policy.upper_level.searching import (
    SearchingSettings,
    planned_search,
    priced,
    search_space,
    searching_stage,
)
from paretune.methods.searches import Searched, read_search


@dataclass(frozen=True)
class SearchedSoupsSettings(AveragedSettings, SearchingSettings):
    """Settings of `SearchedSoups`: which experts, theirs, and how their weights are searched."""


@method("searched_soups", "meta-policy")
class SearchedSoups:
    """Train experts, then search on development prompts for the weights that measure best for every given preference.

    `search` says how: `grid`, the hierarchical grid of EMORL; `random` points; `mirror_descent`, exponentiated-gradient
    steps on finite differences; `gradient_free`, random changes of the best weights so far, at a price for large ones.
    All candidates of a round, of all preferences, are rows of one batch. The preference's own weights are always among
    the candidates. A preference that was not given is answered by the candidate that is worth most for it: every
    measurement of every candidate says what it is worth to anybody.

    Source:
        Kong et al. 2025 (EMORL) for `grid`, Wang et al. 2025 (MPO) for `mirror_descent`, Huang et al. 2023 (LoraHub)
        for `gradient_free`.

    Departures:
        See docs/papers.md.
    """

    settings: SearchedSoupsSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the experts and the search.

        Raises:
            BudgetError: If an expert would get less than one group, or a mixture no completion to be measured with.
            ConfigError: If probabilities are to be mixed of experts whose prior is no distribution for a preference.
            ModelError: If hidden states of the task's model are to be mixed and cannot be, or it has no such block.
        """
        settings, prior = self.settings, self.settings.expert_kind.prior(len(task.objectives))
        plan = planned_search(settings, task, preferences, prior, budget)
        _, evaluations, each = plan
        left = budget - evaluations * each
        with left_by("search_share", left, budget):
            experts = settings.expert_stages(task, left, seed)
        space = search_space(settings, preferences, prior)
        return (*experts, searching_stage(settings, task, experts, space, plan, seed))

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the mixture that measured best for the preference."""
        table = read_search(task, results.values())
        candidates = table.found.candidates
        answer = Searched(candidates, priced(candidates, table.found.scores, self.settings.price))
        experts = (result for result in results.values() if result is not table.search)
        mixer = Mixer(self.settings.level, self.settings.block)
        return Assembly(adapters_of(experts), answer, mixer, notes={"search": table.plain})
