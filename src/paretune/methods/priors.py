"""Priors of a mixture: how a preference alone weighs experts, before any gate; some are searched, and charged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from paretune.core.answers import Answer, Combined
from paretune.core.errors import ConfigError, ShapeError
from paretune.core.named import make_named
from paretune.core.preferences import FloatArray, centre, corners
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.core.user_calls import where_found
from paretune.methods.banks import PriorFrom
from paretune.methods.experts import weighed
from paretune.methods.hierarchical_grid import Space
from paretune.methods.searches import read_search, search_stage

PRIORS = {
    "rule": "paretune.methods.priors:Rule",
    "search": "paretune.methods.priors:SearchedPrior",
}
RULE = "rule"


class Prior(Protocol):
    """How a preference alone weighs experts: a frozen dataclass whose fields are its settings.

    What it is, is known when its stages are finished, so that a bank can be trained under it.
    """

    def stages(
        self, settings: Any, task: Task, experts: tuple[Stage, ...], rule: FloatArray, budget: int, seed: int
    ) -> tuple[Stage, ...]:
        """Return the stages that find it, none where nothing is tried.

        Args:
            settings: Of the method.
            task: Its prompts and objectives; nothing is sampled here.
            experts: Stages of the experts, which need not be trained when this is asked; empty where the mixture
                starts without any.
            rule: Expert weights at each corner of the simplex by the rule of these experts, `[K, E]`.
            budget: Completions that it may spend; what it leaves goes to training.
            seed: Of the noise.

        Raises:
            BudgetError: If that is too little.
        """
        ...

    def answer(self, task: Task, rule: FloatArray, results: Sequence[StageResult]) -> Answer:
        """Return what weighs E experts for a preference.

        Args:
            task: The task.
            rule: As `stages` was given it.
            results: Of stages that are finished, its own among them.
        """
        ...


@dataclass(frozen=True)
class Rule:
    """The rule of the experts: a preference w is answered by `w @ rule`."""

    def stages(
        self, settings: Any, task: Task, experts: tuple[Stage, ...], rule: FloatArray, budget: int, seed: int
    ) -> tuple[Stage, ...]:
        """Return no stages."""
        return ()

    def answer(self, task: Task, rule: FloatArray, results: Sequence[StageResult]) -> Answer:
        """Return the rule itself."""
        return Combined(rule)


@dataclass(frozen=True)
class SearchedPrior:
    """Expert weights that a search found for each corner of the simplex and for its centre; interpolated between.

    The search is EMORL's hierarchical grid on experts that are trained, by what the task is judged on; what the rule
    says for these preferences is among the candidates. It is charged, and the same for whatever preferences are wanted.

    Source:
        The search: Kong et al. 2025 (EMORL). A prior from it is ours.
    """

    rounds: int = 3  # of the grid; fewer where the budget does not give them
    measured_each: int = 32  # completions of a candidate; EMORL's
    simplex: bool = True  # whether weights sum to 1, or each lies in [0, 1]

    def __post_init__(self) -> None:
        for name in ("rounds", "measured_each"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} of a prior must be at least 1, got {getattr(self, name)}. Leave it out.")

    def stages(
        self, settings: Any, task: Task, experts: tuple[Stage, ...], rule: FloatArray, budget: int, seed: int
    ) -> tuple[Stage, ...]:
        """Return the one search.

        Raises:
            ConfigError: If there are no experts to search with, or no reward of each objective to search by.
        """
        if not experts:
            raise ConfigError(
                "prior must be 'rule' without a lower level, got 'search': there are no experts whose mixtures could "
                "be measured. Name a kind of experts, or leave the prior out."
            )
        feedback = getattr(settings, "feedback", "told")
        if feedback != "told":
            raise ConfigError(
                f"prior must be 'rule' where feedback is {feedback}, got 'search', which reads the reward of each "
                "objective for the preference that it is told. Leave one of them out."
            )
        space = self._space(rule)
        rounds, evaluations, each = space.affordable(
            self.rounds, self.measured_each, budget, len(task.development_rows())
        )
        return (search_stage(experts, space, rounds, evaluations, each, "adapters", None, seed, task.judged_on),)

    def answer(self, task: Task, rule: FloatArray, results: Sequence[StageResult]) -> Answer:
        """Return the weights that measured best at the corners and the centre, and what lies between."""
        best, _ = read_search(task, results).found.weights(_searched_for(len(rule)))
        return Interpolated(best[:-1], best[-1])

    def _space(self, rule: FloatArray) -> Space:
        wanted = _searched_for(len(rule))
        return Space(rule.shape[1], wanted, self.simplex, first_candidates=weighed(wanted, rule))


@dataclass(frozen=True, eq=False)
class Interpolated(Combined):
    """Expert weights are known at the corners of the simplex and at its centre, and linear between: `combined`.

    The centre parts the simplex into K smaller ones. A preference w is `K m` parts of the centre, m its least entry,
    and `w_k - m` parts of each corner k.

    Attributes:
        corners: Expert weights at each corner, `[K, E]`.
        centre: Expert weights at the centre, `[E]`.
    """

    centre: FloatArray

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "centre", np.asarray(self.centre, dtype=np.float64))
        if self.centre.shape != self.corners.shape[1:]:
            raise ShapeError(
                f"centre must have a weight for each expert of corners [K, E], got {list(self.centre.shape)} and "
                f"{list(self.corners.shape)}. Give both for the same experts."
            )

    def weights(self, preferences: FloatArray) -> tuple[FloatArray, list[str]]:
        """Answer preferences `[M, K]` with expert weights `[M, E]`.

        Raises:
            ShapeError: If the preferences are of another number of objectives.
        """
        least = preferences.min(axis=1, keepdims=True)
        found, words = super().weights(preferences - least)
        return found + self.objectives * least * self.centre, words


def make_prior(prior: str | Mapping[str, Any]) -> Prior:
    """Make a prior of what a study says of it.

    Args:
        prior: A word of `PRIORS`, `module:Class` of one's own, or a mapping with that as `kind` beside its settings.

    Raises:
        ConfigError: If there is no such prior, or a setting breaks its rule.
    """
    made: Prior = make_named("prior", prior, PRIORS, ("stages", "answer"), "{kind: search, rounds: 2}")
    return made


def prior_from(prior: Any, stages: tuple[Stage, ...]) -> PriorFrom | None:
    """Return what a bank is told of a prior and the stages that find it; None for the rule itself."""
    return None if isinstance(prior, Rule) else PriorFrom({"kind": where_found(type(prior)), **asdict(prior)}, stages)


def _searched_for(objectives: int) -> FloatArray:
    """Return the corners of the simplex and its centre, `[K + 1, K]`; the one corner alone is both."""
    return np.vstack([corners(objectives), centre(objectives)])
