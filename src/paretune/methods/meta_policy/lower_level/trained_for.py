"""Experts that are each trained for objective weights of their own, and the rule that weighs them for a preference."""

from __future__ import annotations

import numpy as np

from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.stages import Stage
from paretune.methods.experts import ExpertSettings, expert_stage, split_budget


def experts_for(
    settings: ExpertSettings, trained: FloatArray, budget: int, seed: int, weighting: str = ""
) -> tuple[Stage, ...]:
    """Describe one expert for each row of objective weights `[E, K]`, from a common start.

    Raises:
        BudgetError: If an expert would get less than one group.
    """
    lengths = split_budget(budget, len(trained), settings.group_size)
    return tuple(
        expert_stage(settings, row, length, seed, weighting) for row, length in zip(trained, lengths, strict=True)
    )


def least_norm_prior(trained: FloatArray) -> FloatArray:
    """Return the prior `[K, E]` of experts trained for objective weights P `[E, K]`.

    It weighs the experts with the shortest g that solves `P' g = w`: what they were trained for, so weighed, is the
    preference. Where rows of P sum to 1, so does g for every preference. Where P is square, it is `g = P'^-1 w`.

    Raises:
        ConfigError: If the experts' weights do not span those of all preferences.

    Source:
        Xie et al. 2025 (Bone Soups) where P is square; the shortest solution where it is not is ours.
    """
    if np.linalg.matrix_rank(trained) < trained.shape[1]:
        raise ConfigError(
            f"experts must be trained for objective weights of which those of every preference can be made, got "
            f"{trained.tolist()}. Move them apart."
        )
    square = trained.shape[0] == trained.shape[1]
    return np.asarray(np.linalg.inv(trained) if square else np.linalg.pinv(trained))  # inv(I) is I to the last bit
