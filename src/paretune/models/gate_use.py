"""What a gate gives each expert, token by token and block by block, while a policy writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from paretune.core.errors import MixingError
from paretune.core.preferences import FloatArray
from paretune.models.bank import ExpertBank
from paretune.models.completions import Completions
from paretune.models.gate import TrainedGate
from paretune.models.gate_sets import GateOfSets
from paretune.models.mixing import Mixing, by_expert, selected
from paretune.models.policy import Policy
from paretune.models.readers.inputs import left_pad
from paretune.models.readers.reader import Reader

ROWS_AT_ONCE = 64  # rows read together


@dataclass(eq=False)
class _Heard:
    """Keeps the weights `[B, T', E]` that a gate chose in each block that asked it."""

    gate: TrainedGate | GateOfSets
    by_block: dict[int, Tensor] = field(default_factory=dict)

    def hear(self, weights: Tensor, prior: Tensor, inside: Tensor, block: int) -> None:
        """Take what is mixed of the weights `[B, T', E]` of one block."""
        del prior, inside
        self.by_block[block] = selected(self.gate, weights)


@torch.no_grad()
def gate_weights(policy: Policy, completions: Completions) -> FloatArray:
    """Return the expert weights in force where each token of some completions was chosen.

    The first token of a completion is what the last prompt token's pass says, and so on. A gate of tokens weighs the
    blocks from the one on that it reads, those before it run under the prior; a gate of prompts weighs all tokens of a
    row alike, in all blocks.

    Args:
        policy: The policy that wrote them; it has a gate.
        completions: B rows of up to T tokens.

    Returns:
        `[B, T, L, E]` of the model's L blocks; NaN behind the end of a completion.

    Raises:
        MixingError: If the policy has no gate.
    """
    if policy.bank is None or policy.gate is None:
        raise MixingError(
            "policy must have a gate to tell its weights, got none. Its experts are mixed by the preference alone."
        )
    owners, parts = [owner for owner, _, _ in completions.row_ids], []
    for start in range(0, len(owners), ROWS_AT_ONCE):
        rows = list(range(start, min(start + ROWS_AT_ONCE, len(owners))))
        prompts = [completions.prompt_ids[row] for row in rows]
        mixing = policy.mixing([owners[row] for row in rows], prompts)
        ids, lengths = completions.token_ids[rows].to(policy.base.device), completions.lengths[rows]
        found = _weights(policy.bank, policy.gate, mixing, prompts, ids, lengths.to(policy.base.device))
        inside = torch.arange(ids.shape[1])[None, :] < lengths[:, None]
        parts.append(torch.where(inside[:, :, None, None], found.double().cpu(), torch.nan))
    return np.asarray(torch.cat(parts).numpy())


def _weights(
    bank: ExpertBank, gate: TrainedGate | GateOfSets, mixing: Mixing, prompts: Sequence[tuple[int, ...]], ids: Tensor,
    lengths: Tensor,
) -> Tensor:  # fmt: skip
    """Return the weights of some rows, `[B, T, L, E]`."""
    blocks, steps = len(bank.blocks), ids.shape[1]
    if mixing.row_gate is not None:
        return mixing.resolved().dense()[:, None, None].expand(-1, steps, blocks, -1)
    heard = _Heard(gate)
    before, real = left_pad(bank.base, prompts)
    inside = torch.arange(steps, device=ids.device)[None, :] < lengths[:, None]
    reader = Reader(bank.base, bank, mixing.heard_by(heard, lengths))
    first = before.shape[1] - 1
    reader.whole(torch.cat([before, ids], dim=1), torch.cat([real, inside], dim=1), keep=1, gate_from=first)
    prior, reads = mixing.dense().to(ids.device)[:, None].expand(-1, steps, -1), gate.reads_block
    found = []
    for block in range(blocks):
        place = block if reads is None else reads
        if block < place:
            found.append(prior)
            continue
        chosen = heard.by_block[place][:, :steps]
        found.append(chosen if mixing.scale is None else chosen * by_expert(mixing.scale).to(chosen)[:, None])
    return torch.stack(found, dim=2)
