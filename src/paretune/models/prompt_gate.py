"""A gate that weighs experts once for each prompt, from what the base model makes of it."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from paretune.models.gate import GateLevel, SmallNetwork


class PromptGate(SmallNetwork):
    """One small network: `g = prior + MLP([states of the prompt, preference])`, the same for all blocks and tokens.

    It reads the states of the base model alone (`prompt_states`), so that weights belong to preference and prompt, and
    a row runs under them as under any others. The last layer starts at zero: an untrained gate is its prior exactly, or
    next to it in the softmax form, see `SmallNetwork.combined`.
    """

    level: ClassVar[GateLevel] = "prompt"

    def row_weights(self, context: Tensor, prior: Tensor, preferences: Tensor) -> Tensor:
        """Return g for rows, `[B, E]`.

        Args:
            context: States of the rows' prompts, `[B, 2 H]`, see `prompt_states`.
            prior: Expert weights of the rows without the gate, `[B, E]`.
            preferences: Of the rows, `[B, K]`.

        Raises:
            MixingError: If the states are not of the size that the gate reads.
        """
        self.check_context(context)
        return self.combined(prior, self.offset(0, context[:, None], preferences)[:, 0])
