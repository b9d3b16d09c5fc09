"""Log-probabilities of given completions, with gradients, each distinct prompt read once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.mixing import Mixing
from paretune.models.readers.inputs import left_pad
from paretune.models.readers.reader import Reader

CHUNK = 2**20  # logits that are held in fp32 at a time, 4 MiB: larger ones cost more than they save in calls
MOST_TOKENS = 4096  # of a pass: beyond, activations leave the processor's caches and every token costs more
PASS_TOKENS = 300  # what one more pass costs, in tokens: measured on the embedded base, where passes are cheapest


def completion_log_probs(
    base: BaseModel,
    bank: ExpertBank | None,
    mixing: Mixing,
    prompts: Sequence[Sequence[int]],
    token_ids: Tensor,
    lengths: Tensor,
    share_prompts: bool = True,
) -> Tensor:
    """Return the log-probability of each completion token, `[B, T]`, 0 behind the end.

    The ids that were sampled are scored, never re-tokenised text. Differentiable in the parameters of
    experts and gate.

    Args:
        base: The base model.
        bank: Its bank of experts; None scores under the base model alone.
        mixing: Expert weights of the rows.
        prompts: Token ids of each row's prompt, B of them.
        token_ids: Completion ids `[B, T]`, right-padded.
        lengths: Tokens of each completion `[B]`.
        share_prompts: Read prompts that are equal and mixed equally once (not under gradient checkpointing, which
            recomputes blocks without their cache).
    """
    return _scored((token_log_probs,), base, bank, mixing, prompts, token_ids, lengths, share_prompts)[0]


def log_probs_and_entropies(
    base: BaseModel,
    bank: ExpertBank | None,
    mixing: Mixing,
    prompts: Sequence[Sequence[int]],
    token_ids: Tensor,
    lengths: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return `completion_log_probs`, and the exact entropy of each token's distribution in nats, both `[B, T]`.

    From one pass; 0 behind the end. Both are differentiable in the parameters of experts and gate.
    """
    made = _scored((token_log_probs, token_entropies), base, bank, mixing, prompts, token_ids, lengths, True)
    return made[0], made[1]


def _scored(
    makes: Sequence[Callable[[Tensor, Tensor, Tensor], Tensor]], base: BaseModel, bank: ExpertBank | None,
    mixing: Mixing, prompts: Sequence[Sequence[int]], token_ids: Tensor, lengths: Tensor, share_prompts: bool,
) -> list[Tensor]:  # fmt: skip
    """Return what functions of logits, token ids and lengths make of each completion, `[B, T]` each."""
    reader = Reader(base, bank, mixing)
    mixing = reader.mixing
    if not (share_prompts and can_share_prompts(base)):
        logits = _plain_logits(reader, prompts, token_ids, lengths)
        return [make(logits, token_ids, lengths) for make in makes]
    heads = reader.heads(prompts)
    parts, orders = [], []
    for rows in length_parts(mixing, lengths.cpu()):
        index = rows.to(base.device)
        steps = int(lengths[index].max())
        logits = heads.completion_logits(rows, token_ids[index, :steps], mixing.rows(rows), heads.states(rows))
        made = [make(logits, token_ids[index, :steps], lengths[index]) for make in makes]
        parts.append([torch.nn.functional.pad(part, (0, token_ids.shape[1] - steps)) for part in made])
        orders.append(index)
    back = torch.cat(orders).argsort()
    return [torch.cat(each)[back] for each in zip(*parts, strict=True)]


def can_share_prompts(base: BaseModel) -> bool:
    """Whether equal prompts can be read once: one mask serves all layers, and no block is recomputed without cache."""
    return base.full_attention and not getattr(base.model, "is_activation_checkpointing", False)


def token_log_probs(logits: Tensor, token_ids: Tensor, lengths: Tensor) -> Tensor:
    """Return the log-probability of each token `[B, T]` under logits `[B, T, V]`, 0 behind the end, in fp32.

    Logits of any number format are read some tokens at a time, also on the way back: a vocabulary is far wider than all
    else, and its fp32 copy would be the largest tensor of an update.
    """
    log_probs: Tensor = _TokenLogProbs.apply(logits, token_ids)
    inside = torch.arange(token_ids.shape[1], device=logits.device)[None, :] < lengths[:, None]
    return torch.where(inside, log_probs, torch.zeros_like(log_probs))


def token_entropies(logits: Tensor, token_ids: Tensor, lengths: Tensor) -> Tensor:
    """Return the entropy of each token's distribution `[B, T]` under logits `[B, T, V]`, 0 behind the end, in fp32.

    Read some tokens at a time like `token_log_probs`, also on the way back.
    """
    entropies: Tensor = _TokenEntropies.apply(logits)
    inside = torch.arange(token_ids.shape[1], device=logits.device)[None, :] < lengths[:, None]
    return torch.where(inside, entropies, torch.zeros_like(entropies))


class _TokenEntropies(torch.autograd.Function):
    """`H = -sum_j p_j log p_j`, whose gradient in logit j is `-p_j (log p_j + H)`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        entropies = torch.empty(logits.shape[:2], device=logits.device)
        for part in _chunks(logits):
            table = logits[part].float().log_softmax(dim=2)
            entropies[part] = torch.special.entr(table.exp()).sum(dim=2)
        ctx.save_for_backward(logits, entropies)
        return entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        logits, entropies = ctx.saved_tensors
        back = torch.empty_like(logits)
        for part in _chunks(logits):
            table = logits[part].float().log_softmax(dim=2)
            chances = table.exp()
            slopes = torch.special.entr(chances) - chances * entropies[part][:, :, None]  # finite where p is 0
            back[part] = (slopes * gradient[part][:, :, None]).to(back.dtype)
        return back


class _TokenLogProbs(torch.autograd.Function):
    """`log p = z_token - logsumexp(z)`, whose gradient is `one_hot(token) - softmax(z)`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, token_ids: Tensor) -> Tensor:
        log_probs = torch.empty(token_ids.shape, device=logits.device)
        for part in _chunks(logits):
            table = logits[part].float().log_softmax(dim=2)
            log_probs[part] = table.gather(2, token_ids[part][:, :, None])[:, :, 0]
        ctx.save_for_backward(logits, token_ids, logits.gather(2, token_ids[:, :, None])[:, :, 0].float() - log_probs)
        return log_probs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        logits, token_ids, sums = ctx.saved_tensors
        back = torch.empty_like(logits)
        for part in _chunks(logits):
            into = back[part] if back.dtype == torch.float32 else torch.empty(back[part].shape, device=back.device)
            torch.sub(logits[part], sums[part][:, :, None], out=into).exp_().mul_(-gradient[part][:, :, None])
            into.scatter_add_(2, token_ids[part][:, :, None], gradient[part][:, :, None])
            if into.dtype != back.dtype:
                back[part] = into
        return back, None


def _chunks(logits: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield parts of `[B, T]` whose logits are few enough to be held in fp32."""
    rows, steps, width = logits.shape
    each = max(1, CHUNK // max(1, width))  # tokens at a time
    high = max(1, each // max(1, steps))
    for row in range(0, rows, high):
        for step in range(0, steps, each):
            yield slice(row, row + high), slice(step, step + each)


def length_parts(mixing: Mixing, lengths: Tensor) -> list[Tensor]:
    """Split rows into parts of similar length, so that little is computed behind the end of short completions.

    Every block of a population gives equally many rows to each part, which keeps the parts populations.
    """
    blocks = mixing.blocks if mixing.is_population else 1
    each = mixing.batch // blocks
    order = lengths.view(blocks, each).argsort(dim=1, descending=True, stable=True)
    order = order + torch.arange(blocks)[:, None] * each
    fewest = -(-lengths.numel() * int(lengths.max()) // MOST_TOKENS)
    choices = [order.tensor_split(parts, dim=1) for parts in range(min(fewest, each), min(fewest + 3, each) + 1)]
    costs = [sum(part.numel() * int(lengths[part].max()) + PASS_TOKENS for part in parts) for parts in choices]
    return [part.flatten() for part in choices[costs.index(min(costs))]]


def _plain_logits(reader: Reader, prompts: Sequence[Sequence[int]], token_ids: Tensor, lengths: Tensor) -> Tensor:
    """One pass over prompt and completion of every row."""
    ids, real = left_pad(reader.base, prompts)
    steps = token_ids.shape[1]
    inside = torch.arange(steps, device=ids.device)[None, :] < lengths[:, None]
    whole, real = torch.cat([ids, token_ids], dim=1), torch.cat([real, inside], dim=1)
    return reader.whole(whole, real, keep=steps + 1, gate_from=ids.shape[1] - 1)[:, :-1]
