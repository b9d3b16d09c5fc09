"""Reptile: a start from which a few updates lead to a good policy for any preference, then one policy for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage, StageContext, StageResult
from paretune.core.task import Task
from paretune.methods.experts import PLANNING, settings_of, split_budget
from paretune.methods.meta_policy.starts import (
    InnerLevel,
    OuterSettings,
    StartSettings,
    best_adapted,
    find_start,
    planned_start,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ReptileOuter(OuterSettings):
    """What an outer step is."""

    outer_rate: float  # share of the way to the mean of what the start becomes

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.outer_rate <= 1:
            raise ConfigError(f"outer_rate must be above 0 and at most 1, got {self.outer_rate}. Try 0.5.")


@dataclass(frozen=True)
class ReptileSettings(StartSettings):
    """Settings of `Reptile`, beside those of a start and of one policy per preference. Untuned; docs/papers.md."""

    outer_rate: float = field(default=0.5, metadata=PLANNING)  # share of the way to the mean of what the start becomes

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target_kl:
            raise ConfigError(
                f"target_kl must be 0 for reptile, got {self.target_kl}: each short training of an outer step begins "
                "with the task's beta, which steering would hardly have moved by its end. Write target_kl: 0."
            )

    def outer(self) -> ReptileOuter:
        """Return what reaches the stage of the start beside the settings of its expert."""
        return ReptileOuter(self.tasks, self.inner_updates, self.outer_rate)


@method("reptile", "meta-policy")
class Reptile:
    """Meta-train a start over drawn preferences, then fine-tune it for each wanted one.

    An outer step draws preferences uniformly from the simplex, trains the start theta for each of them by a few
    updates, and moves it towards what they become: `theta <- theta + epsilon mean_i(theta_i - theta)`. The rest of the
    budget adapts that start to the wanted preferences, one policy for each that the budget affords.

    Source:
        Nichol et al. 2018, Reptile; preferences as its tasks, as in Kong et al. 2025.

    Departures:
        - theta are the factors of a low-rank expert, averaged as such: within an outer step all come from one start.
        - Each inner training has an Adam of its own that starts anew; epsilon is constant, so that longer runs extend
          shorter ones. The last parameters count, not their average.
        - What outer steps leave of the share for the start is one more step with shorter trainings.
        - A stop inside an outer step loses that step: whole ones alone are kept.
    """

    settings: ReptileSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the start and the policies that are adapted from it."""
        return planned_start("reptile", train_start, self.settings, preferences, budget, seed)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer an adapted preference with its own policy, any other with the one estimated best for it."""
        return best_adapted(task, results)


def train_start(context: StageContext) -> None:
    """Meta-train a start for each trajectory, leaving it as `adapter` at every length."""
    find_start(context, ReptileStep)


class ReptileStep:
    """Makes outer steps of one trajectory."""

    def __init__(self, inner: InnerLevel) -> None:
        self.inner, self.outer = inner, settings_of(ReptileOuter, inner.stage)
        self.size = self.outer.tasks * self.outer.inner_updates * inner.learning.completions_per_update

    def make(self, theta: Tensor, number: int, completions: int) -> Tensor:
        """Return the start after outer step `number`, made of so many completions."""
        group = self.inner.learning.group_size
        lengths = split_budget(completions, min(self.outer.tasks, completions // group), group)
        return outer_step(theta, list(self.inner.train(theta, number, lengths)), self.outer.outer_rate)


def outer_step(theta: Tensor, trained: list[Tensor], rate: float) -> Tensor:
    """Return `theta + rate mean_i(theta_i - theta)`.

    Example:
        >>> import torch
        >>> outer_step(torch.tensor([0.0, 2.0]), [torch.tensor([2.0, 2.0]), torch.tensor([4.0, 0.0])], 0.5)
        tensor([1.5000, 1.5000])
    """
    mean = sum(trained[1:], trained[0]) / len(trained)
    return theta + rate * (mean - theta)
