"""A mixture of experts: experts and a gate trained as one policy; the gate reads the preference and the context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from paretune.core.answers import Combined
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, Mixer, method
from paretune.core.stages import GATE, Stage, StageResult
from paretune.core.task import Task
from paretune.methods.banks import BankSettings, GatedSettings, bank_stage, gate_path
from paretune.methods.experts import adapters_of, split_budget


@dataclass(frozen=True)
class MixtureOfExpertsSettings(BankSettings, GatedSettings):
    """Settings of `MixtureOfExperts`, beside those of its bank."""

    gate: str = "block"  # or token, prompt, none, module:Class; docs/your_method.md shows one of your own
    width: int = 32  # hidden units of each of the gate's networks
    gate_learning_rate: float = 0.0  # 0: as the experts'


@method("mixture_of_experts", "meta-policy")
class MixtureOfExperts:
    """Train one expert per objective and a gate, all at once, on prompts that each have a preference of their own.

    In every transformer block and for every token the gate turns the preference w and the block's own input into the
    experts' weights, `g = w + MLP([layernorm(input), w])`. The gate begins as w itself and may leave the simplex. One
    stream of hidden states serves all experts, so a token costs what it costs one policy, and the gate.

    Source:
        Kong et al. 2025 (Visionary Perspective), meta-policies as mixtures of experts; this form is ours.
    """

    settings: MixtureOfExpertsSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the one stage of bank and gate; `preferences` play no part in training."""
        (length,) = split_budget(budget, 1, self.settings.group_size)
        return (bank_stage(self.settings, length, seed, gate_path(self.settings.gate)),)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the experts under the gate, if there is one."""
        (trained,) = results.values()
        mixer = Mixer(gate=trained.artefacts[GATE]) if gate_path(self.settings.gate) else Mixer()
        return Assembly(adapters_of([trained]), Combined(np.eye(len(task.objectives))), mixer)
