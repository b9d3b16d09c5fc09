"""Experts first, one for each objective, then a gate that learns to weigh them while they stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from paretune.core.answers import Combined
from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, Mixer, method
from paretune.core.settings import check_unread
from paretune.core.stages import GATE, Stage, StageResult
from paretune.core.task import Task
from paretune.methods.banks import GatedSettings, bank_stage, gate_path
from paretune.methods.experts import PLANNING, adapters_of, corner_experts, left_by, split_budget


@dataclass(frozen=True)
class GatedExpertsSettings(GatedSettings):
    """Settings of `GatedExperts`, beside those of its experts and its gate."""

    gate: str = field(default="prompt", metadata=PLANNING)  # or block, token, none, module:Class
    gate_share: float = field(default=0.25, metadata=PLANNING)  # of the budget, for the gate; untuned

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.gate_share < 1:
            raise ConfigError(
                f"gate_share must be between 0 and 1, got {self.gate_share}. For no gate at all, write gate: none."
            )
        if not gate_path(self.gate):
            check_unread(self, ("gate_share",), "without a gate")


@method("gated_experts", "meta-policy")
class GatedExperts:
    """Train one expert per objective, then a gate on the frozen experts, on prompts that each have a preference.

    The gate begins as the preference itself, so that what it reaches beyond `rewarded_soups` with the same experts is
    what weighing them by context and preference is worth. It learns by policy gradient through the experts' weights.

    Source:
        Kong et al. 2025 (Visionary Perspective), the meta-policy of two levels. Learned weights over frozen low-rank
        experts are those of Buehler and Buehler 2024 (X-LoRA).

    Departures:
        X-LoRA learns from texts by cross-entropy, and reads the base model's states of all tokens in a first pass at
        every token. Here the gate learns from rewards, is told the preference, and reads the prompt once or what the
        pass has computed by then.
    """

    settings: GatedExpertsSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return one expert per objective and the gate's stage; `preferences` play no part in training.

        Raises:
            BudgetError: If a part would get less than one group.
            ConfigError: If the model has no such block as the gate is to read.
        """
        own, objectives = self.settings, len(task.objectives)
        gate = own.gate_for(task)
        if not gate:
            return corner_experts(own, objectives, budget, seed)
        (length,) = split_budget(max(own.group_size, int(budget * own.gate_share)), 1, own.group_size)
        with left_by("gate_share", budget - length, budget):
            experts = corner_experts(own, objectives, budget - length, seed)
        return (*experts, bank_stage(own, length, seed, gate, experts, trains="gate"))

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the experts under the gate, if there is one."""
        *first, last = results.values()
        experts, answer = [each for each in (*first, last) if each.adapters], Combined(np.eye(len(task.objectives)))
        mixer = Mixer(gate=last.artefacts[GATE]) if gate_path(self.settings.gate) else Mixer()
        return Assembly(adapters_of(experts), answer, mixer)
