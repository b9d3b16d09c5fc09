"""Policy gradients of each objective by itself: how the objectives pull at one expert, without training it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from paretune.core.errors import NonFiniteError, ShapeError
from paretune.models.bank import ExpertBank
from paretune.models.mixing import Mixing
from paretune.models.scoring import completion_log_probs
from paretune.rl.losses import policy_gradient_loss

COLUMNS = 2**18  # of all gradients that are multiplied in double precision at a time


def up_projections(bank: ExpertBank) -> list[nn.Parameter]:
    """Return the factors B of all layers: in an expert that starts as the base model, only they have a gradient."""
    return [layer.B for layer in bank.layers.values()]


def objective_gradients(
    bank: ExpertBank,
    prompt_ids: Sequence[Sequence[int]],
    token_ids: Tensor,
    lengths: Tensor,
    advantages: Tensor,
    parameters: Sequence[nn.Parameter],
) -> Tensor:
    """Return the policy gradient `mean_b A_bk grad log pi(y_b | x_b)` of every objective, `[K, P]`, on the CPU.

    It points to where the expected reward rises. One forward pass serves all objectives, which take a backward pass
    each.

    Args:
        bank: A bank of one expert.
        prompt_ids: Token ids of each completion's prompt, B of them.
        token_ids: Completions that the expert sampled, `[B, T]`, right-padded.
        lengths: Tokens of each completion `[B]`.
        advantages: `[B, K]`.
        parameters: Which of the bank's parameters; P numbers in all.

    Raises:
        ShapeError: If the bank has more than one expert, or there is not one row of advantages per completion.
        NonFiniteError: If a gradient is not finite.

    Source:
        Williams 1992 (REINFORCE).
    """
    count = len(prompt_ids)
    if bank.experts != 1:
        raise ShapeError(f"bank must have one expert, got {bank.experts}. Make one of its own.")
    if advantages.ndim != 2 or len(advantages) != count:
        raise ShapeError(
            f"advantages must have one row per completion ({count}), got shape {list(advantages.shape)}. Score each."
        )
    device, used = bank.base.device, int(lengths.max())
    mixing = Mixing.population(1, count)
    rows = []
    with bank.using(mixing), torch.enable_grad():
        log_probs = completion_log_probs(
            bank.base, bank, mixing, prompt_ids, token_ids[:, :used].to(device), lengths.to(device)
        )
        columns = advantages.to(device, torch.float32).unbind(dim=1)
        for number, column in enumerate(columns, start=1):
            loss = policy_gradient_loss(log_probs, column, count)
            parts = torch.autograd.grad(loss, list(parameters), retain_graph=number < len(columns))
            rows.append(-torch.cat([part.flatten() for part in parts]).float().cpu())
    gradients = torch.stack(rows)
    if not bool(torch.isfinite(gradients).all()):
        raise NonFiniteError(
            "gradients of objectives must be finite, got NaN or infinity. Check the base model in fp32."
        )
    return gradients


def gram_of(gradients: Sequence[Tensor]) -> NDArray[np.float64]:
    """Return the inner products of N batches' gradients `[K, P]`, in double precision, `[N, N, K, K]`.

    Some columns at a time, so that no second copy of all gradients is made.
    """
    batches, objectives = len(gradients), len(gradients[0])
    total = torch.zeros(batches * objectives, batches * objectives, dtype=torch.float64)
    step = max(1, COLUMNS // len(total))
    for start in range(0, gradients[0].shape[1], step):
        part = torch.cat([each[:, start : start + step] for each in gradients]).double()
        total += part @ part.T
    return np.asarray(total.view(batches, objectives, batches, objectives).permute(0, 2, 1, 3).numpy())
