"""A grid of weights: one policy per grid point, and each preference selects the one that measured best for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from paretune.core.errors import BudgetError, ConfigError, RewardError
from paretune.core.preferences import FloatArray, grid_preferences
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.methods.experts import (
    PLANNING,
    adapters_of,
    expert_stage,
    left_by,
    measurement_stage,
    split_budget,
    trained_weights,
    whole_passes,
)
from paretune.methods.feedback import FeedbackSettings
from paretune.methods.judging import judged_scores
from paretune.methods.multi_policy.selection import MeasuredSet, SelectSettings, selected

FINEST = 64  # divisions at which the search for the largest grid stops


@dataclass(frozen=True)
class WeightGridSettings(SelectSettings, FeedbackSettings):
    """Settings of `WeightGrid`, beside those of its experts."""

    feedbacks: ClassVar[tuple[str, ...]] = ("told", "oracle")  # members are selected by the reward of each objective

    # of a member's budget, training and measuring together; as for `linear`
    completions_each: int = field(default=1500, metadata=PLANNING)
    # of these, on development prompts; reward sd .3 gives a standard error below .03
    measured_each: int = field(default=128, metadata=PLANNING)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.measured_each < self.completions_each - self.group_size:
            raise ConfigError(
                "measured_each must be at least 1 and leave a group to train on, got "
                f"{self.measured_each} of {self.completions_each}. Try 128 of 1500."
            )


@method("weight_grid", "multi-policy")
class WeightGrid:
    """Train the largest Das-Dennis grid, plus the centre, that gives each member its completions; never merge.

    The smallest grid, corners and centre, is trained even where that gives each member fewer.

    Source:
        MORLHF as the baseline of Ramé et al. 2023 and others; multi-policy family of Kong et al. 2025.

    Departures:
        Selection by what the task is judged on, or by another utility, measured on development prompts, and its
        completions charged to the budget. The notes say what the choices are worth, cross-fitted.
    """

    settings: WeightGridSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the grid's experts and their measurement; `preferences` play no part in training."""
        grid = self.grid(len(task.objectives), budget)
        measured = min(self.settings.measured_each, budget // (4 * len(grid)))  # at most a quarter of a small budget
        measured = whole_passes(measured, len(task.development_rows()))
        if measured < 1:
            raise BudgetError(
                f"budget must leave a completion to measure each of {len(grid)} members with, got {budget}. Raise it."
            )
        left = budget - measured * len(grid)
        with left_by("measured_each", left, budget):
            lengths = split_budget(left, len(grid), self.settings.group_size)
        experts = tuple(
            expert_stage(self.settings, row, length, seed) for row, length in zip(grid, lengths, strict=True)
        )
        return (*experts, measurement_stage(experts, measured, seed))

    def grid(self, objectives: int, budget: int) -> FloatArray:
        """Return the weights of the members, `[N, K]`."""
        affordable = budget // self.settings.completions_each
        best = grid_preferences(objectives, 1)
        for divisions in range(2, FINEST + 1):
            finer = grid_preferences(objectives, divisions)
            if len(finer) > affordable:
                break
            best = finer
        return best

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the member that measured best, by what the task is judged on."""
        experts = tuple(result for result in results.values() if result.stage.kind == "expert")
        measured = next(result for result in results.values() if result.stage.kind == "measurement")
        scores = np.asarray(measured.values["scores"], dtype=np.float64)  # None becomes NaN
        if np.isnan(scores).any():
            missing = task.objective_names[int(np.isnan(scores).any(axis=0).argmax())]
            raise RewardError(
                f"every member must have a measured score on every objective, got none on '{missing}'. Mend its "
                "reward function; its log says why scores are missing."
            )
        kl, folds = (np.asarray(measured.values[name], dtype=np.float64) for name in ("kl", "folds"))
        counts = np.asarray(measured.values.get("fold_counts", np.ones_like(folds)), dtype=np.float64)
        flat = folds.reshape(-1, folds.shape[2])
        judged = judged_scores(task, flat[:, :-1], flat[:, -1]).reshape(*folds.shape[:2], -1)  # [E, F, K]
        known = MeasuredSet(judged_scores(task, scores, kl), kl, judged, folds[:, :, -1], counts[:, :, :-1])
        every, own = range(len(experts)), self.settings
        answer, chosen = selected(task, own.select, own.select_point, known, every, preferences)
        notes = {
            "scores": scores.tolist(), "kl": kl.tolist(), "objective_weights": trained_weights(experts).tolist(),
            **chosen,
        }  # fmt: skip
        return Assembly(adapters_of(experts), answer, notes=notes)
