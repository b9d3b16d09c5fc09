"""Where experts are mixed: what a pass over some rows is at each level of mixing."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from paretune.core.errors import MixingError
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.mixing import GateFrom, Mixing


class Level(Protocol):
    """One pass of the model over N rows, whatever number of streams of hidden states that takes.

    Attributes:
        cost: Passes through the network that one token of one row takes.
        widest: Rows of the model's widest layers for each row.
    """

    cost: float
    widest: int

    def forward(self, mixing: Mixing, arguments: dict[str, Any], keep: int, gate_from: GateFrom = 0) -> Tensor:
        """Return the logits of the last `keep` positions, `[N, keep, V]`; softmax makes probabilities of them.

        Args:
            mixing: Of these rows, some of those that the level was made for.
            arguments: The model's own, N rows; a cache among them holds what `cache_rows` says.
            keep: Number of positions.
            gate_from: See `ExpertBank.using`.
        """
        ...  # fmt: skip

    def cache_rows(self, layer: int, index: Tensor, rows: int) -> Tensor:
        """Return which rows of a layer's cache belong to the rows `index` out of `rows`, in their order."""
        ...  # fmt: skip


def level_of(base: BaseModel, bank: ExpertBank | None, mixing: Mixing) -> Level:
    """Return the level at which a mixing mixes.

    Raises:
        MixingError: If experts are to be mixed and there is no bank, or one of another number of experts.
        ModelError: If the model cannot be mixed there.
    """
    from paretune.models.readers.adapters import AdapterDeltas
    from paretune.models.readers.hidden import HiddenStates
    from paretune.models.readers.log_probs import LogProbs
    from paretune.models.readers.probabilities import Probabilities

    if mixing.level == "adapters":
        return AdapterDeltas(base, bank)
    if bank is None or mixing.experts != bank.experts:
        count = "no bank" if bank is None else f"a bank of {bank.experts}"
        raise MixingError(
            f"mixing of {mixing.level} must have a bank of its {mixing.experts} experts, got {count}. Load the experts "
            "that it weighs."
        )
    if mixing.level == "hidden":
        return HiddenStates(base, bank, mixing)
    return LogProbs(base, bank, mixing) if mixing.level == "log_probs" else Probabilities(base, bank, mixing)
