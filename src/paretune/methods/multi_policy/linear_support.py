"""Linear support: each policy is trained where the set of policies so far could be improved most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.methods.multi_policy.rounds import assemble_set, set_stage
from paretune.methods.multi_policy.set_settings import SetSettings

REUSES = ("none", "nearest")


@dataclass(frozen=True)
class LinearSupportSettings(SetSettings):
    """Settings of `LinearSupport`, beside those of its members."""

    completions_each: int = 1500  # of a member, training and measuring together; as for `weight_grid`
    measured_each: int = 128  # of these at least, on development prompts; reward sd .3 gives a standard error below .03
    round_size: int = 1  # members trained between two looks at the set; more are faster, and chosen knowing less
    reuse: str = "none"  # or nearest: a member learns on from the one trained for the nearest weights

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("reuse", self.reuse, REUSES)
        if self.round_size < 1:
            raise ConfigError(f"round_size must be at least 1, got {self.round_size}. Try 1.")
        if not 1 <= self.measured_each <= self.completions_each - self.completions_per_update - self.group_size:
            raise ConfigError(
                f"measured_each must be at least 1 and leave an update of {self.completions_per_update} to train on, "
                f"got {self.measured_each} of {self.completions_each}. Try 128 of 1500."
            )

    @property
    def each(self) -> int:
        """Completions of a member, whole groups."""
        return self.completions_each // self.group_size * self.group_size

    @property
    def trained(self) -> int:
        """Of these, completions to train on: whole updates, so that a member can learn on where it stopped."""
        update = self.completions_per_update
        return (self.each - self.measured_each) // update * update


@method("linear_support", "multi-policy")
class LinearSupport:
    """Train a policy for each objective, then others where the best known utility could be improved most; never merge.

    Where the best member changes from one to another, on a corner of their upper envelope, a linear program says how
    much better a policy could be without contradicting those that were trained. The next members are trained for the
    corners of the largest gains. Where no gain exceeds the noise of measuring, members that were trained least learn on
    instead. The most that is left to be gained anywhere stands in the notes (`certificate`).

    Source:
        Roijers, Whiteson and Oliehoek 2015 (optimistic linear support); Mossalam et al. 2016 with learned policies.

    Departures:
        - Scores are measured: a corner is open where more can be gained than noise, and the certificate has it added.
        - The budget is always spent: published, the search ends when no corner is left.
        - Several corners are trained a round, in one batch.
        - Scores are what the task is judged on, so `r - beta KL` where that is J. The reasons stand in docs/papers.md.
    """

    settings: LinearSupportSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the one stage of the whole search; `preferences` play no part in it.

        Raises:
            BudgetError: If not every objective could have a policy that is trained and measured.
        """
        run = "paretune.methods.multi_policy.support_rounds:support"
        return (set_stage("support", run, self.settings, task, budget, len(task.objectives), seed, version=2),)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the member that measured best."""
        return assemble_set(task, self.settings, preferences, results)
