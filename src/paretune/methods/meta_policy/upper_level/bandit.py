"""The stage of a contextual bandit over expert weights: what it chooses among, how it explores, what it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np

from paretune.bandits.arms import check_arms
from paretune.bandits.contexts import check_context
from paretune.bandits.policies import EXPLORATION, check_exploration
from paretune.bandits.ridge import fresh
from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.settings import OPTIONAL, plain_settings
from paretune.core.stages import Stage
from paretune.core.task import JudgedOn
from paretune.methods.banks import CONTEXTS, SHUFFLED_VERSION
from paretune.methods.experts import weighed

PULLS = "pulls.parquet"  # the log
RUN = "paretune.methods.meta_policy.upper_level.bandit_run:run_bandit"


@dataclass(frozen=True)
class BanditSettings:
    """Settings of a bandit's stage."""

    algorithm: str  # how arms are chosen while it learns; it answers greedily
    exploration: float | None  # how much it explores, in the algorithm's own units; None: its default
    floor: float  # share of pulls of an arm at random
    divisions: int  # of the lattice that arms step towards
    step: float  # how far
    stretch: float  # what arms outside of the simplex are multiplied by
    features: int  # components of a prompt's states
    products: int  # of which so many are multiplied with the preference
    ridge: float  # noise variance over that of what an arm adds to a coefficient
    caution: float  # how sure it must be that an arm is better than the rule to answer with it
    pulls_each_round: int  # pulls between two looks at what was learned, all of them rows of one batch
    context: str  # own, blind or shuffled
    prior: Sequence[Sequence[float]]  # [K, E], the rule
    feedback: str = field(default="told", metadata=OPTIONAL)
    judged_on: JudgedOn = field(default="J", metadata=OPTIONAL)  # what arms are chosen to answer by

    def __post_init__(self) -> None:
        check_choice("algorithm", self.algorithm, EXPLORATION)
        check_exploration(self.algorithm, self.exploration, self.floor)
        if not self.floor > 0:
            raise ConfigError(f"floor must be positive, got {self.floor}: every arm must have a chance. Try 0.05.")
        check_choice("context", self.context, CONTEXTS)
        check_choice("judged_on", self.judged_on, get_args(JudgedOn))
        check_context(self.features, self.products)
        if not 0 <= self.caution < float("inf"):
            raise ConfigError(f"caution must be finite and not negative, got {self.caution}. Write 0 for none.")
        if self.pulls_each_round < 1:
            raise ConfigError(f"pulls_each_round must be at least 1, got {self.pulls_each_round}. Try 64.")
        fresh(1, 1, 1, self.ridge)  # refuses a ridge that is none, as the next line does arms
        check_arms(len(self.prior[0]), self.divisions, self.step, self.stretch)


def bandit_stage(
    settings: BanditSettings, experts: Sequence[Stage], completions: int, seed: int
) -> Stage:  # fmt: skip
    """Describe a bandit over the weights of experts that stay as they are.

    Args:
        settings: Of the bandit.
        experts: Stages whose adapters are weighed, in the order that the prior weighs them.
        completions: Its pulls: one completion each.
        seed: Of the pulls and their noise.

    Returns:
        A stage of kind `bandit`, which leaves the gate and the log, and reports what each arm was pulled and what the
        gate earns by the log.
    """
    # version 2 of what a shuffled gate reads is not written: stages were keyed without one, and stay what they are
    renewed = settings.context == "shuffled" and SHUFFLED_VERSION > 2
    return Stage(
        kind="bandit",
        run=RUN,
        settings={**plain_settings(settings), **({"context_version": SHUFFLED_VERSION} if renewed else {})},
        needs=tuple(experts),
        completions=completions,
        seed=seed,
        version=2,  # noise over the degrees of freedom that the fit leaves, not over pulls
    )


def rule_of(prior: FloatArray) -> list[list[float]]:
    """Return a prior `[K, E]` as the plain data of a stage."""
    rule: list[list[float]] = weighed(np.eye(len(prior)), prior).tolist()
    return rule


def in_whole_rounds(completions: int, each: int) -> int:
    """Return the largest number of completions that is whole rounds; all of them where they are less than one.

    Example:
        >>> in_whole_rounds(200, 64), in_whole_rounds(40, 64)
        (192, 40)
    """
    return completions // each * each or completions
