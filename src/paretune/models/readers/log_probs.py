"""Log-probabilities: a stream of every expert to the end, mixed where they say which token comes next."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.divergences import DIVERGENCES
from paretune.models.mixing import GateFrom, Mixing
from paretune.models.readers.adapters import AdapterDeltas
from paretune.models.readers.streams import Streams


class LogProbs:
    """`log p = sum_e g_e log p_e + (1 - sum_e g_e) log p_ref - log Z` for every token.

    Logits are mixed in the place of log-probabilities: they differ by the experts' normalisers, which are the same for
    all tokens and go into Z. Not so where a mixing is weighed: there the log-sum-exp of what is returned is log Z.

    That is for the reverse KL. Another divergence mixes by its own formula, and always reads the base model as well.

    Source:
        Shi et al. 2024 (MOD).
    """

    def __init__(self, base: BaseModel, bank: ExpertBank, mixing: Mixing) -> None:
        self.streams, self._deltas = Streams(mixing), AdapterDeltas(base, bank)
        self.widest = len(self.streams)
        self.cost = float(self.widest)

    def forward(self, mixing: Mixing, arguments: dict[str, Any], keep: int, gate_from: GateFrom = 0) -> Tensor:
        """Return mixed logits of the last `keep` positions, `[N, keep, V]`; see `Level.forward`."""
        logits = stream_logits(self._deltas, self.streams, mixing, arguments, keep)
        weights = self.streams.weights(mixing).to(logits)
        if mixing.divergence != "reverse_kl":
            log_probs = logits.log_softmax(dim=-1)
            shares = weights.T[:, :, None].expand(log_probs.shape[:3])
            return DIVERGENCES[mixing.divergence](log_probs, log_probs[-1], shares)  # the last stream: the base model
        if mixing.weighed:
            logits = logits.log_softmax(dim=-1)
        return torch.einsum("ns,sntv->ntv", weights, logits)

    def cache_rows(self, layer: int, index: Tensor, rows: int) -> Tensor:
        """Return the rows of all streams."""
        return self.streams.cache_rows(index, rows)


def stream_logits(
    deltas: AdapterDeltas, streams: Streams, mixing: Mixing, arguments: dict[str, Any], keep: int
) -> Tensor:
    """Return the logits of every stream of some rows at the last `keep` positions, `[S, N, keep, V]`, fp32."""
    logits = deltas.forward(streams.mixing(mixing.batch), streams.spread(arguments), keep)
    return logits.float().view(len(streams), mixing.batch, *logits.shape[1:])
