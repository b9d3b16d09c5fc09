"""Log-probabilities: a stream of every expert to the end, mixed where they say which token comes next."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.mixing import GateFrom, Mixing
from paretune.models.readers.adapters import AdapterDeltas
from paretune.models.readers.streams import Streams


class LogProbs:
    """`log p = sum_e g_e log p_e + (1 - sum_e g_e) log p_ref - log Z` for every token.

    Logits are mixed in the place of log-probabilities: they differ by the experts' normalisers, which are the same for
    all tokens and go into Z.

    Source:
        Shi et al. 2024 (MOD), for the reverse KL.
    """

    def __init__(self, base: BaseModel, bank: ExpertBank, mixing: Mixing) -> None:
        self.streams, self._deltas = Streams(mixing), AdapterDeltas(base, bank)
        self.widest = len(self.streams)
        self.cost = float(self.widest)

    def forward(self, mixing: Mixing, arguments: dict[str, Any], keep: int, gate_from: GateFrom = 0) -> Tensor:
        """Return mixed logits of the last `keep` positions, `[N, keep, V]`; see `Level.forward`."""
        logits = self._deltas.forward(self.streams.mixing(mixing.batch), self.streams.spread(arguments), keep)
        logits = logits.float().view(len(self.streams), mixing.batch, *logits.shape[1:])
        return torch.einsum("ns,sntv->ntv", self.streams.weights(mixing).to(logits), logits)

    def cache_rows(self, layer: int, index: Tensor, rows: int) -> Tensor:
        """Return the rows of all streams."""
        return self.streams.cache_rows(index, rows)
