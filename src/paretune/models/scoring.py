"""Log-probabilities of given completions, with gradients, each distinct prompt read once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.decoding import forward_logits
from paretune.models.mixing import Mixing

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
    if not (share_prompts and can_share_prompts(base)):
        logits = _plain_logits(base, bank, mixing, prompts, token_ids, lengths)
        return token_log_probs(logits, token_ids, lengths)
    heads = PromptHeads(base, bank, mixing, prompts)
    parts, orders = [], []
    for rows in length_parts(mixing, lengths.cpu()):
        index = rows.to(base.device)
        steps = int(lengths[index].max())
        logits = heads.completion_logits(rows, token_ids[index, :steps], mixing.rows(rows), heads.states(rows))
        part = token_log_probs(logits, token_ids[index, :steps], lengths[index])
        parts.append(torch.nn.functional.pad(part, (0, token_ids.shape[1] - steps)))
        orders.append(index)
    back = torch.cat(orders).argsort()
    return torch.cat(parts)[back]


def can_share_prompts(base: BaseModel) -> bool:
    """Whether equal prompts can be read once: one mask serves all layers, and no block is recomputed without cache."""
    return base.full_attention and not getattr(base.model, "is_activation_checkpointing", False)


def token_log_probs(logits: Tensor, token_ids: Tensor, lengths: Tensor) -> Tensor:
    """Return the log-probability of each token `[B, T]` under logits `[B, T, V]`, 0 behind the end."""
    log_probs = logits.gather(2, token_ids[:, :, None])[:, :, 0] - logits.logsumexp(dim=2)
    inside = torch.arange(token_ids.shape[1], device=logits.device)[None, :] < lengths[:, None]
    return torch.where(inside, log_probs, torch.zeros_like(log_probs))


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


def left_pad(base: BaseModel, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return prompt ids `[B, P]` and which of them are real."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), longest), base.pad_id, device=base.device)
    real = torch.zeros(len(prompts), longest, dtype=torch.bool, device=base.device)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(list(prompt), device=base.device)
        real[row, longest - len(prompt) :] = True
    return ids, real


def _plain_logits(
    base: BaseModel, bank: ExpertBank | None, mixing: Mixing, prompts: Sequence[Sequence[int]], token_ids: Tensor,
    lengths: Tensor,
) -> Tensor:  # fmt: skip
    """One pass over prompt and completion of every row."""
    ids, real = left_pad(base, prompts)
    steps = token_ids.shape[1]
    inside = torch.arange(steps, device=base.device)[None, :] < lengths[:, None]
    mask = torch.cat([real, inside], dim=1)
    arguments: dict[str, Any] = {
        "input_ids": torch.cat([ids, token_ids], dim=1), "attention_mask": mask.long(), "use_cache": False,
    }  # fmt: skip
    if base.takes_positions:
        arguments["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)
    logits = forward_logits(base, bank, mixing, arguments, keep=steps + 1, gate_from=ids.shape[1] - 1)
    return logits[:, :-1].float()


class PromptHeads:
    """Distinct prompts, read once under their mixing; their keys and values serve all their completions.

    The last prompt token is left to be read with the completion, so that one pass yields the logits of all its tokens.
    No token before it is gated: rows whose gates differ share a prompt where they agree on what is before the gate.

    Attributes:
        owner: Which of the distinct prompts each row has, `[B]`.
        cache: Keys and values of the distinct prompts, layer by layer.
    """

    def __init__(
        self, base: BaseModel, bank: ExpertBank | None, mixing: Mixing, prompts: Sequence[Sequence[int]]
    ) -> None:
        from transformers import DynamicCache

        self.base, self.bank = base, bank
        groups = mixing.group_keys(gated=False)
        seen: dict[tuple[bytes, tuple[int, ...]], int] = {}
        first: list[int] = []
        owner: list[int] = []
        for row, prompt in enumerate(prompts):
            identity = (groups[row], tuple(prompt))
            if identity not in seen:
                seen[identity] = len(first)
                first.append(row)
            owner.append(seen[identity])
        self.owner = torch.tensor(owner)
        self.last = torch.tensor([prompt[-1] for prompt in prompts])
        ids, real = left_pad(base, [list(prompts[row][:-1]) or [base.pad_id] for row in first])
        for number, row in enumerate(first):
            if len(prompts[row]) == 1:
                real[number] = False  # a prompt of one token has no head; its row attends to nothing before
        self.real = real
        self.cache: Any = DynamicCache(config=base.model.config)
        arguments: dict[str, Any] = {
            "input_ids": ids, "attention_mask": _causal(real, real.shape[1]), "past_key_values": self.cache,
        }  # fmt: skip
        if base.takes_positions:
            arguments["position_ids"] = (real.cumsum(dim=1) - 1).clamp(min=0)
        forward_logits(base, bank, mixing.rows(torch.tensor(first)), arguments, keep=1, gate_from=ids.shape[1])

    def states(self, rows: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return keys and values of some rows' prompts, layer by layer: copies through which gradients flow.

        Args:
            rows: Which rows, `[B']`.
        """
        index = self.owner[rows].to(self.base.device)
        return [(layer.keys[index], layer.values[index]) for layer in self.cache.layers]

    def completion_logits(
        self, rows: Tensor, token_ids: Tensor, mixing: Mixing, states: Sequence[tuple[Tensor, Tensor]]
    ) -> Tensor:
        """Return the logits of every token of some rows' completions, `[B', T, V]`.

        Args:
            rows: Which rows, `[B']`.
            token_ids: Their completions, `[B', T]`.
            mixing: Expert weights of these rows.
            states: Keys and values of their prompts.
        """
        from transformers import DynamicCache

        base, steps = self.base, token_ids.shape[1]
        index = self.owner[rows].to(base.device)
        cache: Any = DynamicCache(config=base.model.config)
        for number, (keys, values) in enumerate(states):
            cache.update(keys, values, number)
        real = self.real[index]
        new = torch.ones(len(rows), steps, dtype=torch.bool, device=base.device)
        last = self.last[rows].to(base.device)
        arguments: dict[str, Any] = {
            "input_ids": torch.cat([last[:, None], token_ids[:, :-1]], dim=1),
            "attention_mask": _causal(torch.cat([real, new], dim=1), steps),
            "past_key_values": cache,
        }
        if base.takes_positions:
            arguments["position_ids"] = real.sum(dim=1)[:, None] + torch.arange(steps, device=base.device)[None, :]
        return forward_logits(base, self.bank, mixing, arguments, keep=steps).float()


def _causal(real: Tensor, queries: int) -> Tensor:
    """Return the mask `[B, 1, Q, S]` of the last `queries` positions: earlier real tokens and the position itself."""
    size = real.shape[1]
    position = torch.arange(size, device=real.device)
    query = position[size - queries :]
    before = position[None, :] <= query[:, None]
    itself = position[None, :] == query[:, None]  # a padded position sees itself: a softmax over nothing is NaN
    return ((before[None] & real[:, None, :]) | itself[None])[:, None]
