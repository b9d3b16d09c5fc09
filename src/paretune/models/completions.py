"""Sampled completions, row by row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Completions:
    """Sampled completions, B rows.

    Attributes:
        prompt_ids: Token ids of each row's formatted prompt.
        token_ids: Sampled ids `[B, T]`, right-padded.
        lengths: Tokens of each row `[B]`.
        texts: Decoded completions, special tokens left out.
        log_probs: `[B, T]` under the policy at temperature 1, in nats, 0 behind the end.
        reference_log_probs: The same under the base model; all NaN unless asked for.
        finish: `stop` or `length`, one per row.
        row_ids: (policy index, prompt index, sample) of each row.
        latency_seconds: From the start of the row's batch until its last token `[B]`.
    """

    prompt_ids: tuple[tuple[int, ...], ...]
    token_ids: Tensor
    lengths: Tensor
    texts: tuple[str, ...]
    log_probs: Tensor
    reference_log_probs: Tensor
    finish: tuple[str, ...]
    row_ids: tuple[tuple[int, int, int], ...]
    latency_seconds: NDArray[np.float64]

    def ids(self, row: int) -> tuple[int, ...]:
        """Return the token ids of one row without padding."""
        return tuple(self.token_ids[row, : int(self.lengths[row])].tolist())
