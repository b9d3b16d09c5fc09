"""Experts whose parameters are averaged, and whether they begin alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from paretune.core.checks import check_choice
from paretune.core.stages import Stage
from paretune.core.task import Task
from paretune.methods.experts import LATER, own_starts
from paretune.methods.meta_policy.lower_level import CombiningSettings

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
        """
        experts = self.expert_kind.stages(self, task, budget, seed)
        return experts if self.start == "shared" else own_starts(experts)
