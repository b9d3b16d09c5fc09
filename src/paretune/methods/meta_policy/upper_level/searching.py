"""Searches for the expert weights of every wanted preference, on development prompts: settings, plan, stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError
from paretune.core.model_config import check_block_of
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Level, Mixer
from paretune.core.seeds import generator
from paretune.core.settings import check_read
from paretune.core.stages import Stage, StageContext
from paretune.core.task import JudgedOn, Task
from paretune.methods.experts import PLANNING, ExpertSettings, settings_of, weighed
from paretune.methods.hierarchical_grid import Found, Measure, Space, affordable, distinct
from paretune.methods.meta_policy.upper_level.proposals import (
    MirrorDescent,
    Proposals,
    RandomPoints,
    SmallChanges,
    search_in_rounds,
)
from paretune.methods.searches import check_mixable, run_search, search_stage

Search = Literal["grid", "random", "mirror_descent", "gradient_free"]
READERS: dict[str, tuple[Search, ...]] = {  # settings that not all searches read, and which do
    "candidates": ("random", "gradient_free"),
    "difference": ("mirror_descent",),
    "rate": ("mirror_descent",),
    "step": ("gradient_free",),
    "l1": ("gradient_free",),
}


@dataclass(frozen=True)
class SearchingSettings(ExpertSettings):
    """Settings of a method that searches expert weights, beside those of the experts themselves."""

    search: Search = field(default="grid", metadata=PLANNING)
    rounds: int = field(default=5, metadata=PLANNING)  # as EMORL; fewer where the budget does not give them
    candidates: int = field(default=4, metadata=PLANNING)  # random: a round; gradient_free: a round and preference
    measured_each: int = field(default=32, metadata=PLANNING)  # completions of a candidate; as EMORL
    search_share: float = field(default=0.25, metadata=PLANNING)  # of the budget at most; as EMORL
    beyond: float = field(default=0.0, metadata=PLANNING)  # how far outside the simplex, or the cube if gradient_free
    difference: float = field(default=0.2, metadata=PLANNING)  # mirror_descent: share of the way to a corner; untuned
    rate: float = field(default=1.0, metadata=PLANNING)  # mirror_descent: of the first step; untuned
    step: float = field(default=0.2, metadata=PLANNING)  # gradient_free: standard deviation at first; untuned
    l1: float = field(default=0.05, metadata=PLANNING)  # gradient_free: price of the sum of |weights|; published
    level: Level = field(default="adapters", metadata=PLANNING)  # where experts are mixed
    block: int | None = field(default=None, metadata=PLANNING)  # at level hidden; None: the last

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("search", self.search, get_args(Search))
        check_choice("level", self.level, get_args(Level))
        for name in ("rounds", "candidates", "measured_each"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}. Leave it out.")
        for name, top in (("search_share", 1.0), ("difference", 1.0), ("rate", np.inf), ("step", np.inf)):
            if not 0 < getattr(self, name) < top:
                raise ConfigError(f"{name} must lie between 0 and {top:g}, got {getattr(self, name)}. Leave it out.")
        for name in ("beyond", "l1"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ConfigError(f"{name} must be finite and 0 or more, got {getattr(self, name)}. Leave it out.")
        check_read(self, "search", READERS)
        check_read(self, "level", {"block": ("hidden",)})
        if self.level == "probabilities" and (self.beyond or self.search == "gradient_free"):
            raise ConfigError(
                "level must not be 'probabilities' where weights that are no distribution are searched, got search "
                f"'{self.search}' with beyond {self.beyond}. Search on the simplex, or mix log-probabilities."
            )

    @property
    def price(self) -> float:
        """What the sum of absolute weights costs a candidate."""
        return self.l1 if self.search == "gradient_free" else 0.0

    def proposals(self) -> Proposals:
        """Return what proposes candidates, at its start."""
        kinds: dict[Search, Proposals] = {
            "random": RandomPoints(self.candidates),
            "mirror_descent": MirrorDescent(self.difference, self.rate),
            "gradient_free": SmallChanges(self.candidates, self.step),
        }
        return kinds[self.search]


@dataclass(frozen=True)
class RoundsSettings:
    """Settings of a search that is asked in rounds."""

    search: Search
    utilities: list[list[float]]  # of the preferences that it serves
    first_candidates: list[list[float]]  # the preferences' own weights
    beyond: float
    rounds: int
    evaluations: int  # so many measurements, exactly
    completions_each: int  # of each
    level: Level
    block: int | None
    judged_on: JudgedOn
    read: dict[str, float]  # what the search reads of `SearchingSettings` beside these


def planned_search(
    settings: SearchingSettings, task: Task, preferences: FloatArray, prior: FloatArray, budget: int
) -> tuple[int, int, int]:
    """Return the rounds of a search, its measurements, and the completions of each.

    Args:
        settings: How much is wanted.
        task: It says how many development prompts there are.
        preferences: Wanted ones, `[M, K]`.
        prior: Expert weights at each corner, `[K, E]`.
        budget: Completions of experts and search together.

    Raises:
        BudgetError: If not every candidate of a first round could be measured.
        ConfigError: If the preferences' own weights cannot be mixed at the level of the settings.
    """
    space = search_space(settings, preferences, prior)
    share, prompts = int(settings.search_share * budget), len(task.development_rows())
    if settings.search == "grid":
        return space.affordable(settings.rounds, settings.measured_each, share, prompts)
    first, more = len(distinct(space.first_candidates)), settings.proposals().each(space)
    most = [first + rounds * more for rounds in range(1, settings.rounds + 1)]
    return affordable(most, settings.measured_each, share, prompts)


def search_space(settings: SearchingSettings, preferences: FloatArray, prior: FloatArray) -> Space:
    """Return what is searched: weights of all experts, the preferences' own among them.

    Raises:
        ConfigError: If these cannot be mixed at the level of the settings.
    """
    own = weighed(preferences, prior)
    check_mixable(settings.level, own)
    return Space(prior.shape[1], preferences, True, own, settings.beyond)


def searching_stage(
    settings: SearchingSettings, task: Task, experts: Sequence[Stage], space: Space, plan: tuple[int, int, int],
    seed: int,
) -> Stage:  # fmt: skip
    """Describe the search, charged like training; the grid of plain simplexes is the stage of EMORL's.

    Args:
        settings: Which search.
        task: It says what policies are judged on, and has the model.
        experts: What is mixed.
        space: What is searched.
        plan: Of `planned_search`.
        seed: Of the noise and of what is proposed.

    Raises:
        ModelError: If hidden states of the task's model are to be mixed and cannot be, or it has no such block.
    """
    if settings.level == "hidden":
        check_block_of(task.model, settings.block)
    rounds, evaluations, each = plan
    if settings.search == "grid":
        return search_stage(
            experts, space, rounds, evaluations, each, settings.level, settings.block, seed, task.judged_on
        )
    own = RoundsSettings(
        settings.search, space.utilities.tolist(), space.first_candidates.tolist(), space.beyond, rounds, evaluations,
        each, settings.level, settings.block, task.judged_on,
        {name: getattr(settings, name) for name, readers in READERS.items() if settings.search in readers},
    )  # fmt: skip
    run = "paretune.methods.meta_policy.upper_level.searching:search_by_rounds"
    return Stage("search", run, asdict(own), needs=tuple(experts), completions=evaluations * each, seed=seed)


def search_by_rounds(context: StageContext) -> None:
    """Search expert weights on development prompts, by what the task is judged on; it leaves `search.json`."""
    for stage in context.stages:
        own = settings_of(RoundsSettings, stage)
        read: dict[str, Any] = dict(own.read)
        chosen = SearchingSettings(search=own.search, **read)

        def find(
            experts: int, measure: Measure, own: RoundsSettings = own, chosen: SearchingSettings = chosen,
            stage: Stage = stage,
        ) -> Found:  # fmt: skip
            space = Space(experts, np.asarray(own.utilities), True, np.asarray(own.first_candidates), own.beyond)

            def valued(candidates: FloatArray, times: int) -> FloatArray:
                return priced(candidates, measure(candidates, times), chosen.price)

            drawn = generator(stage.seed, "search", own.search)
            return search_in_rounds(space, chosen.proposals(), own.rounds, own.evaluations, valued, drawn)

        run_search(context, stage, Mixer(own.level, own.block), own.completions_each, find)


def priced(candidates: FloatArray, scores: FloatArray, price: float) -> FloatArray:
    """Return scores `[C, K]` less the price of absolute weights; as preferences sum to one, it is paid once."""
    return np.asarray(scores - price * np.abs(candidates).sum(axis=1, keepdims=True)) if price else scores
