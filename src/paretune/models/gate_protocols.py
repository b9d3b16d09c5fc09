"""What a mixing asks of a gate, trained or not, and who hears of its answers."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Gate(Protocol):
    """What a mixing asks for the expert weights of its gated tokens.

    A gate must read nothing but what it is given: then one pass over a whole sequence agrees with cached decoding.

    Attributes:
        experts: Number of experts E that it weighs.
        objectives: Number of objectives K of a preference.
        blocks: Number of transformer blocks of the base model that it was made for.
    """

    experts: int
    objectives: int
    blocks: int

    def weights(self, block: int, hidden: Tensor, prior: Tensor, preferences: Tensor) -> Tensor:
        """Return g for the tokens of one block, `[B, T, E]`, any real numbers.

        Args:
            block: Number of the transformer block.
            hidden: The block's own input at the gated tokens, `[B, T, H]`.
            prior: Expert weights of the rows without the gate, `[B, E]`.
            preferences: Of the rows, `[B, K]`.
        """
        ...  # fmt: skip


class Listener(Protocol):
    """What hears of the weights that a gate chooses, as it returned them: a term of the loss, for one."""

    def hear(self, weights: Tensor, prior: Tensor, inside: Tensor, block: int) -> None:
        """Take weights `[B, T, E]`, the prior of the rows `[B, E]`, and which tokens count `[B, T]`."""
        ...  # fmt: skip


class RowGate(Protocol):
    """What a mixing asks for one set of expert weights for each row: a network, or any other rule, such as a bandit.

    Attributes:
        experts: Number of experts E that it weighs.
        objectives: Number of objectives K of a preference.
    """

    experts: int
    objectives: int

    def row_weights(self, context: Tensor, prior: Tensor, preferences: Tensor) -> Tensor:
        """Return g for some rows, `[B, E]`, any real numbers; of each row for itself.

        Args:
            context: What it knows of the prompts of the rows, `[B, D]`.
            prior: Expert weights of the rows without it, `[B, E]`.
            preferences: Of the rows, `[B, K]`.
        """
        ...  # fmt: skip
