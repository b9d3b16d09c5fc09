"""A gate that weighs experts once for each token, from the input of one block, for all blocks from there on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from paretune.core.model_config import check_gate_block
from paretune.models.bank import ExpertBank
from paretune.models.gate import GateLevel, SmallNetwork, normalised


class TokenGate(SmallNetwork):
    """One small network, `g_t = prior + MLP([layernorm(input of a block), preference])`, for the blocks from there on.

    The blocks before run under the prior, as the tokens before the last of the prompt do. Which block is the setting
    `gate_block`; at 0 the gate sees the token alone, further up what came before it. The last layer starts at zero.
    """

    level: ClassVar[GateLevel] = "token"
    reads: ClassVar[tuple[str, ...]] = (*SmallNetwork.reads, "gate_block")

    def __init__(self, bank: ExpertBank, objectives: int, seed: int, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(bank, objectives, seed, settings)
        check_gate_block(self.reads_block, self.blocks)

    @property
    def reads_block(self) -> int:
        """Number of the block whose input it reads."""
        return int(self.settings.get("gate_block", 0))

    def weights(self, block: int, hidden: Tensor, prior: Tensor, preferences: Tensor) -> Tensor:
        """Return g for the tokens, `[B, T, E]`, from the input of the block that it reads; see `BlockGate.weights`."""
        del block
        return self.combined(prior[:, None], self.offset(0, normalised(hidden, self.hidden_size), preferences))
