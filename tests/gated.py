"""Gates over rows of the micro-task, untrained or as if they were trained: `import gated`."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import micro_task
from paretune.core.seeds import prompt_key, row_keys
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.gate import BlockGate
from paretune.models.mixing import Mixing
from paretune.models.scoring import completion_log_probs

PROMPTS = [(1, 2, 3, 4), (6,), (1, 2, 3, 4), (7, 2), (7, 2), (1, 2, 3, 4), (6,), (5, 5, 1)]
ROWS, EXPERTS, OBJECTIVES = len(PROMPTS), 3, 2
TOKENS = torch.randint(1, 8, (ROWS, 3), generator=torch.Generator().manual_seed(1))
LENGTHS = torch.tensor([3, 2, 3, 1, 3, 2, 1, 3])


def bank_of(base: BaseModel, experts: int = EXPERTS) -> ExpertBank:
    bank = ExpertBank(base, experts, rank=2, alpha=4.0)
    bank.alphas = torch.tensor([4.0, 2.0, 1.0][:experts])  # scales differ, so that none can be left out unseen
    return micro_task.perturb(bank)


def gate_of(bank: ExpertBank, trained: bool = True, seed: int = 0, width: int = 5) -> BlockGate:
    gate = BlockGate(bank, OBJECTIVES, seed, {"width": width})
    if trained:
        draws = torch.randn(gate.flat.shape, generator=torch.Generator().manual_seed(seed)) * 0.3
        gate.flat.add_(draws.to(gate.flat.device))
    return gate


def prior_of(rows: int = ROWS) -> Tensor:
    """Some rows share theirs, though their preferences differ."""
    return torch.tensor([[0.2, 0.5, 0.3], [1.0, 0.0, -0.4]])[torch.arange(rows) % 2]


def preferences_of(rows: int = ROWS) -> Tensor:
    first = torch.linspace(0, 1, 3)[torch.arange(rows) % 3]
    return torch.stack([first, 1 - first], dim=1)


def mixing_of(gate: BlockGate, scale: Tensor | None = None) -> Mixing:
    return Mixing.gated(prior_of(), gate, preferences_of(), scale)


def keys() -> NDArray[np.uint64]:
    return row_keys(0, 0, [prompt_key(prompt) for prompt in PROMPTS], range(ROWS))


def score(bank: ExpertBank, mixing: Mixing, share: bool = True) -> Tensor:
    return completion_log_probs(bank.base, bank, mixing, PROMPTS, TOKENS, LENGTHS, share_prompts=share)
