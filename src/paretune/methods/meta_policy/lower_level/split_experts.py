"""Experts of one objective and one half of the prompts each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray, corners
from paretune.core.stages import Stage
from paretune.core.task import Task
from paretune.methods.experts import ExpertSettings, expert_stage, split_budget
from paretune.methods.prompt_halves import HALVES, half_of_prompts, trained_prompts


@dataclass(frozen=True)
class SplitExperts:
    """Two experts for each objective: one trained on prompts below a threshold of a feature, one on those above.

    They come objective by objective, below before above. On prompts of the other half an expert has never learned, so
    which experts are good depends on the prompt: a mixture that reads it has something to gain. The prior, which does
    not, weighs both experts of an objective alike; `prior_by_half` is the rule of somebody who knows the feature
    (`methods.prompt_halves.above`).

    Source:
        Ours; a lower level that leaves the upper one something to do.
    """

    split_by: str = ""  # a column of numbers in the prompt files; controlled tasks have a feature of their own
    threshold: float = 0.0  # where the halves meet, in units of the feature; a prompt at it is above

    def __post_init__(self) -> None:
        if not math.isfinite(self.threshold):
            raise ConfigError(f"threshold must be finite, got {self.threshold}. Write where the halves meet.")

    def stages(self, settings: ExpertSettings, task: Task, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return two experts for each objective, from a common start.

        Raises:
            TaskError: If the prompts cannot be told apart by such a feature, or are all in one half.
            BudgetError: If an expert would get less than one group.
        """
        rows = [(row, half) for row in corners(len(task.objectives)) for half in HALVES]
        lengths = split_budget(budget, len(rows), settings.group_size)
        experts = tuple(
            expert_stage(
                settings, row, length, seed, prompts=half_of_prompts(half, self.split_by, float(self.threshold))
            )
            for (row, half), length in zip(rows, lengths, strict=True)
        )
        for each in experts[: len(HALVES)]:
            trained_prompts(task, each.member)  # so that what cannot be split is refused when it is planned
        return experts

    def prior(self, objectives: int) -> FloatArray:
        """Return the weights at each corner `[K, 2 K]`: half for either expert of the objective."""
        return np.repeat(np.eye(objectives) / 2, 2, axis=1)

    def prior_by_half(self, objectives: int) -> FloatArray:
        """Return the weights at each corner for prompts below and for prompts above, `[2, K, 2 K]`.

        All of an objective's weight goes to its expert of the prompt's own half. No method is told the half: recipes
        ask for this, to measure what a gate could gain that finds it (`recipes/meta_policy/kinds.py`, `split_gain.py`).
        """
        found = np.zeros((len(HALVES), objectives, len(HALVES) * objectives))
        for half in range(len(HALVES)):
            found[half, np.arange(objectives), len(HALVES) * np.arange(objectives) + half] = 1.0
        return found
