"""How a trainee learns: settings that all members of a population share, without torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError
from paretune.core.settings import OPTIONAL

ADVANTAGES = {  # word -> the function that makes advantages of rewards
    name: f"paretune.rl.advantages:{name}"
    for name in ("leave_one_out", "k_sample_mean", "grpo", "gdpo", "self_critical")
}
SCALAR = ("leave_one_out", "grpo")  # those that are a function of the weighed sum of rewards alone, in each group
WEIGHED = ("grpo", "gdpo")  # those that objective weights are needed for
RATIOS = ("completion", "sequence", "token")
LOSS_TYPES = ("sum", "grpo", "bnpo", "dr_grpo", "dapo")
KL_ESTIMATORS = ("k1", "k3", "k3_corrected")
TRAINS = ("both", "gate", "experts")  # what learns of one policy for all preferences


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
    ratio: str = "completion"  # sequence: its root by length, token: one a token; TRL's importance_sampling_level
    advantages: str = "leave_one_out"  # k_sample_mean, grpo, gdpo, self_critical, module:function: docs/learning.md
    loss_type: str = "sum"  # over tokens, by completions; TRL's grpo, bnpo, dr_grpo, dapo: docs/learning.md
    kl_estimator: str = "k1"  # folded into advantages; or k3, k3_corrected: in the loss, by token
    entropy_coef: float = 0.0  # reward units per nat of mean token entropy, TRL's name
    target_kl: float = 0.0  # nats a completion that beta is steered to; 0: beta stays the task's
    stop_kl: float = 0.0  # nats a completion from the sampled policy that end a batch's epochs; 0: none
    # earlier completions per expert that each step learns from too; 0: none, docs/results/learner.md
    replay: int = field(default=0, metadata=OPTIONAL)
    replay_window: int = field(default=0, metadata=OPTIONAL)  # of the latest completions to draw them from; 0: all
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
        check_choice("ratio", self.ratio, RATIOS)
        check_choice("loss_type", self.loss_type, LOSS_TYPES)
        check_choice("kl_estimator", self.kl_estimator, KL_ESTIMATORS)
        if ":" not in self.advantages:
            check_choice("advantages", self.advantages, ADVANTAGES)
        if not self.entropy_coef >= 0 or not self.target_kl >= 0 or not self.stop_kl >= 0:
            raise ConfigError(
                "entropy_coef, target_kl and stop_kl must not be negative, got "
                f"{self.entropy_coef}, {self.target_kl} and {self.stop_kl}. Write 0 for none."
            )
        if self.stop_kl and self.epochs == 1:
            raise ConfigError(
                f"stop_kl must be 0 where epochs is 1, got {self.stop_kl}: there is no later epoch to leave out. Leave "
                "one of them out."
            )
        self._check_replay()
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

    def _check_replay(self) -> None:
        """Refuse to learn again where that would not be what the other settings say."""
        for name in ("replay", "replay_window"):
            if getattr(self, name) < 0 or getattr(self, name) % self.group_size:
                raise ConfigError(
                    f"{name} must be a multiple of group_size ({self.group_size}), got {getattr(self, name)}. Write 0 "
                    f"for {'none' if name == 'replay' else 'all'}."
                )
        if self.replay_window and not self.replay:
            raise ConfigError(
                f"replay_window must be 0 without replay, got {self.replay_window}. Say how much is learned again, or "
                "leave it out."
            )
        needed = {"ratio": "completion", "kl_estimator": "k1", "loss_type": "sum", "advantages": "leave_one_out"}
        for name, value in needed.items() if self.replay else ():
            if getattr(self, name) != value:
                raise ConfigError(
                    f"replay must be 0 with {name} '{getattr(self, name)}', got {self.replay}: advantages of earlier "
                    f"completions are made anew as for {name} '{value}'. Leave one of them out."
                )
        if self.replay and self.entropy_coef:
            raise ConfigError(
                f"replay must be 0 with entropy_coef {self.entropy_coef}, got {self.replay}: the bonus is one of the "
                "completions of an update. Leave one of them out."
            )


def check_target(beta: float, target_kl: float, where: str = "") -> None:
    """Refuse to steer a KL coefficient that starts at 0 and could only stay there.

    Args:
        beta: The task's.
        target_kl: That of the settings.
        where: Whose settings they are, to be said before the rule, with a colon.

    Raises:
        ConfigError: If it does.
    """
    if target_kl and not beta > 0:
        raise ConfigError(
            f"{where}target_kl must be 0 where the task's beta is 0, got {target_kl}: beta is steered by factors. Give "
            "the task a beta to start from."
        )


def check_unweighed(advantages: str, weighed: bool, where: str = "") -> None:
    """Refuse advantages that need objective weights which are chosen from gradients, and so from advantages.

    Args:
        advantages: Their name.
        weighed: Whether they need such weights.
        where: Whose settings they are, to be said before the rule, with a colon.

    Raises:
        ConfigError: If they do.
    """
    if weighed:
        *others, last = [
            f"{name} (the default)" if name == LearnerSettings.advantages else name
            for name in ADVANTAGES
            if name not in WEIGHED
        ]
        raise ConfigError(
            f"{where}advantages must be made without objective weights where the method chooses these from gradients, "
            f"got '{advantages}', which needs them. Use {', '.join(others)} or {last}."
        )
