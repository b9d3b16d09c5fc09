"""Experts whose parameters are averaged, and whether they begin alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from paretune.core.checks import check_choice
from paretune.core.stages import Stage
from paretune.core.task import Task
from paretune.methods.experts import LATER, own_starts
from paretune.methods.meta_policy.lower_level import CombiningSettings, check_started_here

Start = Literal["shared", "own"]


@dataclass(frozen=True)
class AveragedSettings(CombiningSettings):
    """Settings of a method that averages parameters of experts, beside those of the experts themselves."""

    # own: each expert from a random A of its own; what `mixture_of_experts` calls `independent`
    start: Start = field(default="shared", metadata=LATER)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("start", self.start, get_args(Start))

    def expert_stages(self, task: Task, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the stages of the experts.

        Raises:
            BudgetError: If an expert would get less than one group.
            ConfigError: If experts are to start from an A of their own and have a run function of their own.
        """
        experts = self.expert_kind.stages(self, task, budget, seed)
        if self.start == "shared":
            return experts
        check_started_here(experts, self.start)
        return own_starts(experts)
