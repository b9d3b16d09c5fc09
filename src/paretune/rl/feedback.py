"""What is known of what users want of prompts while a policy learns, and that nothing else is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.task import Row
from paretune.core.user_calls import where_found
from paretune.rl.estimators import Estimator
from paretune.rl.settings import ADVANTAGES, SCALAR

PromptPreferences = Callable[[Sequence[Row], FloatArray], FloatArray]  # rows, [M, K] -> [M, P, K]


def wanted_of(prompt_preferences: PromptPreferences, rows: Sequence[Row], preferences: FloatArray) -> FloatArray:
    """Return what the user of each preference `[N, K]` wants of the prompt beside it, `[N, K]`.

    Args:
        prompt_preferences: Of a task, see `core.task.Task.prompt_preferences`.
        rows: N prompts.
        preferences: One of each prompt.
    """
    pairs = zip(rows, preferences, strict=True)
    return np.stack([prompt_preferences([row], preference[None])[0, 0] for row, preference in pairs])


def check_scalar(estimator: Estimator | None, weightings: Sequence[object], shaping: object) -> None:
    """Refuse what would learn from more than one number a completion.

    With leave-one-out or GRPO's advantages, what a completion changes is a function of the weighed sum of its rewards
    alone, as all completions of a group are weighed alike: of two rewards of equal worth nothing tells them apart.

    Args:
        estimator: What makes advantages of rewards; None for leave-one-out.
        weightings: Of the members, none by default.
        shaping: A function, or shapings of the members, or nothing.

    Raises:
        ConfigError: If there is something that reads rewards objective by objective.
    """
    made = estimator is not None and where_found(estimator.function)
    found = {
        "a weighting": bool(weightings),
        "a shaping": bool(shaping),
        f"advantages {made}": bool(made) and made not in [ADVANTAGES[name] for name in SCALAR],
    }
    for name, reads in found.items():
        if reads:
            raise ConfigError(
                f"learning must read one number a completion, and nothing else, where feedback is utility, got {name}, "
                f"which reads the reward of each objective. Leave it out; advantages may be {' or '.join(SCALAR)}."
            )


def seen(feedback: str, scored: FloatArray, objective_weights: FloatArray) -> Tensor:
    """Return the rewards that are learned from, `[B, K]`, NaN where missing.

    Where feedback is the utility, a completion that lacks a reward its worth is made of has no worth at all.

    Args:
        feedback: Its class.
        scored: `[B, K]`, NaN where missing.
        objective_weights: What completions are worth by, `[B, K]`.
    """
    rewards = torch.from_numpy(scored)
    if feedback != "utility":
        return rewards
    unknown = (rewards.isnan() & torch.from_numpy(objective_weights > 0)).any(dim=1, keepdim=True)
    return rewards.masked_fill(unknown, torch.nan)
