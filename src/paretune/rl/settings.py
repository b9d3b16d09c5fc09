"""How a trainee learns: settings that all members of a population share, without torch."""

from __future__ import annotations

from dataclasses import dataclass

from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError


@dataclass(frozen=True)
class LearnerSettings:
    """How experts, banks and gates learn; names and units as in TRL where it has one.

    Every setting is a constant of a run, never of its planned length: so a longer run extends a shorter one.
    """

    learning_rate: float = 2.5e-3  # on the embedded base, docs/results/learner.md; 1e-4 for 0.5 B
    group_size: int = 8  # completions per prompt G, TRL's num_generations
    completions_per_update: int = 64  # per expert
    epochs: int = 4  # optimiser steps from each batch, TRL's num_iterations
    clip: float = 0.2  # of the ratio in later epochs, TRL's epsilon
    ratio: str = "completion"  # or token: one ratio a token, for completions of hundreds of tokens
    average_decay: float = 0.97  # of the average of the parameters that is handed over; 0: the last parameters
    warmup_steps: int = 0  # optimiser steps of linear warm-up, several an update with epochs; TRL's name
    max_grad_norm: float = 1.0  # per expert; over bank and gate where they are trained together
    weight_decay: float = 0.0  # AdamW
    micro_batch: int = 0  # completions per backward pass and expert, 0: all at once
    update_dtype: str = "model"  # or bfloat16: autocast in the update

    def __post_init__(self) -> None:
        if self.group_size < 2 or self.completions_per_update % self.group_size:
            raise ConfigError(
                "completions_per_update must be a multiple of group_size, which must be at least 2, got "
                f"{self.completions_per_update} and {self.group_size}. Try 64 and 8."
            )
        if self.completions_per_update < self.group_size:
            raise ConfigError(
                f"completions_per_update must be at least one group of {self.group_size}, got "
                f"{self.completions_per_update}. Try 64."
            )
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate must be positive, got {self.learning_rate}. Try 0.0025.")
        if self.epochs < 1 or not 0 < self.clip < 1:
            raise ConfigError(
                f"epochs must be at least 1 and clip between 0 and 1, got {self.epochs} and {self.clip}. Try 4 and 0.2."
            )
        check_choice("ratio", self.ratio, ("completion", "token"))
        if not 0 <= self.average_decay < 1:
            raise ConfigError(
                f"average_decay must be at least 0 and below 1, got {self.average_decay}. Write 0 for the last "
                "parameters."
            )
        if self.micro_batch < 0 or self.micro_batch % self.group_size:
            raise ConfigError(
                f"micro_batch must be a multiple of group_size ({self.group_size}), got {self.micro_batch}. "
                "Write 0 for one backward pass over all."
            )
        if self.warmup_steps < 0 or not self.weight_decay >= 0:
            raise ConfigError(
                f"warmup_steps and weight_decay must not be negative, got {self.warmup_steps} and "
                f"{self.weight_decay}. Write 0 for none."
            )
        if not self.max_grad_norm > 0:
            raise ConfigError(f"max_grad_norm must be positive, got {self.max_grad_norm}. Try 1.0.")
        check_choice("update_dtype", self.update_dtype, ("model", "bfloat16"))
