"""Adapter deltas: one stream of hidden states, experts mixed inside every layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.mixing import GateFrom, Mixing


class AdapterDeltas:
    """`y = W x + sum_e g_e s_e B_e A_e x` in every wrapped layer, see `ExpertBank`.

    Without a bank it is the base model alone, even where someone else's bank wraps it.
    """

    cost: float = 1
    widest: int = 1

    def __init__(self, base: BaseModel, bank: ExpertBank | None) -> None:
        self.base, self.bank = base, bank

    def forward(self, mixing: Mixing, arguments: dict[str, Any], keep: int, gate_from: GateFrom = 0) -> Tensor:
        """Return the logits of the last `keep` positions, `[N, keep, V]`; see `Level.forward`."""
        bank = self.bank
        if bank is None:
            bank, mixing = getattr(self.base.model, "_paretune_bank", None), Mixing.reference(mixing.batch)
        if bank is None:
            logits: Tensor = self.base.model(**arguments, logits_to_keep=keep).logits
            return logits
        with bank.using(mixing, gate_from):
            mixed: Tensor = self.base.model(**arguments, logits_to_keep=keep).logits
        return mixed

    def cache_rows(self, layer: int, index: Tensor, rows: int) -> Tensor:
        """Return `index`: a row of the cache for each row."""
        return index
