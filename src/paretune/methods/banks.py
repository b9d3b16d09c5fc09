"""The stage that methods with one policy share: a bank of experts, and a gate, trained together on all preferences."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from paretune.core.stages import Stage
from paretune.methods.experts import expert_settings
from paretune.methods.feedback import FeedbackSettings

BANK = "paretune.methods.training:train_bank"  # leaves one expert for each objective


@dataclass(frozen=True)
class BankSettings(FeedbackSettings):
    """How a bank is shaped and trained: one expert per objective, on preferences drawn for each prompt."""

    epochs: int = 2  # of the longer training of one policy for all; four go astray on text, docs/results/learner.md


@dataclass(frozen=True)
class GateSettings:
    """What a stage says of the gate of its bank, beside what the gate itself reads."""

    gate: str = ""  # module:Class; empty for none
    gate_learning_rate: float = 0.0  # 0: as the experts'


def bank_stage(settings: Any, completions: int, seed: int, gate: str = "") -> Stage:
    """Describe one policy for all preferences: the experts of all objectives, and a gate that weighs them.

    Args:
        settings: The method's settings, those of `BankSettings` among them.
        completions: Its budget.
        seed: Training seed; each expert starts from a random A of its own.
        gate: `module:Class` of a gate; empty weighs experts by the preference alone.
    """
    return Stage(
        kind="bank",
        run=BANK,
        settings={**asdict(GateSettings()), **expert_settings(settings), "gate": gate},
        completions=completions,
        seed=seed,
    )
