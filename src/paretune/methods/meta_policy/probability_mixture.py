"""Probability mixture: experts of all objectives, or of several seeds, whose next-token probabilities are averaged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from paretune.core.answers import Combined
from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray, corners
from paretune.core.protocols import Assembly, Mixer, method
from paretune.core.seeds import stream_key
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.methods.experts import PLANNING, ExpertSettings, adapters_of, expert_stage, split_budget


@dataclass(frozen=True)
class ProbabilityMixtureSettings(ExpertSettings):
    """Settings of `ProbabilityMixture`, beside those of its experts."""

    seeds_each: int = field(default=1, metadata=PLANNING)  # experts of each objective, which share the budget equally

    def __post_init__(self) -> None:
        super().__post_init__()
        given: object = self.seeds_each  # whatever a study wrote
        if isinstance(given, bool) or not isinstance(given, int) or given < 1:
            raise ConfigError(f"seeds_each must be a whole number from 1 on, got {given!r}. Try 2.")


@method("probability_mixture", "meta-policy")
class ProbabilityMixture:
    """Train experts for each objective and average what they say: `p = sum_k w_k p_k` at every token.

    With `seeds_each: 1` it is an ensemble of objectives, whose experts are those of rewarded soups. With more, each
    objective has an ensemble of its own: experts that differ in their random start and in what they sampled, and count
    equally. The budget is split over all of them. A token costs a pass for each expert with weight.

    Source:
        The linear opinion pool (Stone 1961); deep ensembles (Lakshminarayanan et al. 2017) for seeds.

    Departures:
        Both average whole predictions. Here tokens are sampled one after the other from averages given the same words
        so far, which is not the average over whole completions: that would choose an expert once for each.
    """

    settings: ProbabilityMixtureSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the experts, those of an objective side by side; `preferences` play no part in training."""
        settings = self.settings
        rows = [(row, number) for row in corners(len(task.objectives)) for number in range(settings.seeds_each)]
        lengths = split_budget(budget, len(rows), settings.group_size)
        return tuple(
            expert_stage(settings, row, length, member_seed(seed, number))
            for (row, number), length in zip(rows, lengths, strict=True)
        )

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the experts' probabilities: those of an objective share its weight."""
        each = self.settings.seeds_each
        shares = np.repeat(np.eye(len(task.objectives)), each, axis=1) / each
        return Assembly(adapters_of(results.values()), Combined(shares), Mixer("probabilities"))


def member_seed(seed: int, number: int) -> int:
    """Return the training seed of one of an objective's experts: the first has the cell's own, as any other method's.

    The others are no seeds of other cells, which have to stay independent of this one.
    """
    return seed if number == 0 else stream_key(seed, "member", number) % 2**62
