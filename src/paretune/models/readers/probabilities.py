"""Probabilities: a stream of every expert to the end, averaged where they say which token comes next."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.mixing import GateFrom, Mixing
from paretune.models.readers.adapters import AdapterDeltas
from paretune.models.readers.log_probs import stream_logits
from paretune.models.readers.streams import Streams


class Probabilities:
    """`p = sum_e g_e p_e + (1 - sum_e g_e) p_ref` for every token: the prediction of an ensemble."""

    def __init__(self, base: BaseModel, bank: ExpertBank, mixing: Mixing) -> None:
        self.streams, self._deltas = Streams(mixing), AdapterDeltas(base, bank)
        self.widest = len(self.streams)
        self.cost = float(self.widest)

    def forward(self, mixing: Mixing, arguments: dict[str, Any], keep: int, gate_from: GateFrom = 0) -> Tensor:
        """Return log-probabilities of the last `keep` positions, `[N, keep, V]`; see `Level.forward`."""
        log_probs = stream_logits(self._deltas, self.streams, mixing, arguments, keep).log_softmax(dim=-1)
        shares = self.streams.weights(mixing).to(log_probs).T[:, :, None, None]  # [S, N, 1, 1]
        return (shares.log() + log_probs).logsumexp(dim=0)

    def cache_rows(self, layer: int, index: Tensor, rows: int) -> Tensor:
        """Return the rows of all streams."""
        return self.streams.cache_rows(index, rows)
