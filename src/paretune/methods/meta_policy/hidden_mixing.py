"""Hidden-state mixing: one expert per objective, mixed behind one block, read on by one stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from paretune.core.answers import Combined
from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError
from paretune.core.model_config import check_block_of
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, Continued, Mixer, Norm, method
from paretune.core.settings import check_unread
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.methods.experts import LATER, PLANNING, adapters_of
from paretune.methods.feedback import FeedbackSettings
from paretune.methods.meta_policy.lower_level import CombiningSettings


@dataclass(frozen=True)
class HiddenMixingSettings(CombiningSettings, FeedbackSettings):
    """Settings of `HiddenMixing`, beside those of its experts, which are the same whatever these say."""

    # behind which states are mixed, from 0 on, or from the last, -1; behind the last nothing is left to read on
    block: int = field(default=-2, metadata=PLANNING)
    # what reads on: "soup", the average of the experts, so that a corner is its expert, or "base", no expert
    continued: Continued = field(default="soup", metadata=PLANNING)
    # controls, behind the last block: mixed "before" the final norm, or "after" it, which is mixing log-probabilities
    norm: Norm = field(default="before", metadata=LATER)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("continued", self.continued, get_args(Continued))
        check_choice("norm", self.norm, get_args(Norm))
        if self.norm == "after" and self.block != -1:
            raise ConfigError(
                f"norm must be 'before' but behind the last block, -1, got 'after' behind block {self.block}. Write "
                "'block: -1', or leave it out."
            )
        if self.block == -1:
            check_unread(self, ("continued",), "where block is -1, behind which nothing is left to read on")


@method("hidden_mixing", "meta-policy")
class HiddenMixing:
    """Train one expert per objective and mix their hidden states behind one block, the preference as weights.

    Up to the block every expert has a stream of its own; one stream reads on from the mixture. Mixing the states of the
    last block is mixing logits with weights that depend on the token; it takes a block behind it to be anything else.
    `block: -1` with `norm: before` or `after` are the controls that show it.

    Source:
        Kong et al. 2025 (EMORL), hidden-state aggregation; mixing before the last block is ours.

    Departures:
        EMORL mixes states behind the final norm, which in front of one linear head is the same as mixing logits.
    """

    settings: HiddenMixingSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the experts, by default one per objective; `preferences` play no part in training.

        Raises:
            ModelError: If hidden states of the task's model cannot be mixed, or it has no such block.
        """
        check_block_of(task.model, self.settings.block)
        return self.settings.expert_kind.stages(self.settings, task, budget, seed)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the experts' hidden states, weighed by the prior of their kind: by default the preference."""
        mixer = Mixer("hidden", self.settings.block, continued=self.settings.continued, norm=self.settings.norm)
        prior = self.settings.expert_kind.prior(len(task.objectives))
        return Assembly(adapters_of(results.values()), Combined(prior), mixer)
