"""Attention to few keys: products of all rows at once, and a softmax that does not look at each row by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface

from paretune.models.base import BaseModel

NAME = "paretune_few_keys"  # of `attend` among the attention functions of transformers
KINDS = ("gpt2", "llama", "qwen2")  # by model_type: their attention is softmax(scale q k') v, and calls what is set
MOST_KEYS = 32  # with more, the library's own kernels are faster


def attends_plainly(base: BaseModel) -> bool:
    """Whether a model attends to all earlier tokens in all layers, with scores as they are, in fp32 on a processor."""
    plain = base.full_attention and getattr(base.model.config, "model_type", None) in KINDS
    return plain and base.dtype == torch.float32 and base.device.type == "cpu"


@contextmanager
def attending(base: BaseModel, arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Let a model attend by products where its mask is of few keys; yields what its forward pass must be given.

    Args:
        base: The model.
        arguments: Of its forward pass, with a mask of truth values `[B, 1, Q, S]`.
    """
    mask = arguments["attention_mask"]
    if mask.shape[3] > MOST_KEYS or torch.is_autocast_enabled("cpu") or not attends_plainly(base):
        yield arguments
        return
    added = torch.zeros(mask.shape).masked_fill_(~mask, -torch.inf)
    with attention_named(base.model.config, NAME):
        yield arguments | {"attention_mask": added}


@contextmanager
def attention_named(config: Any, name: str) -> Iterator[None]:
    """Let the model of a configuration use an attention function of transformers by its name."""
    before, config._attn_implementation = config._attn_implementation, name
    try:
        yield
    finally:
        config._attn_implementation = before


def softmax(scores: Tensor) -> Tensor:
    """Return the softmax over the last dimension, at most `MOST_KEYS` wide: over so few, one operation is slower.

    Example:
        >>> softmax(torch.zeros(1, 4)).tolist()
        [[0.25, 0.25, 0.25, 0.25]]
    """
    if scores.shape[-1] > MOST_KEYS:
        return scores.softmax(dim=-1)
    shares = (scores - scores.amax(dim=-1, keepdim=True)).exp_()
    return shares.div_(shares.sum(dim=-1, keepdim=True))


class _Attention(torch.autograd.Function):
    """`softmax(scale q k' + added) v` and its gradients, of N products each."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, added: Tensor, scale: float) -> Tensor:
        """Attend, `[B, heads, n Q, d]` to as much; `added` is `[B, 1, 1, Q, S]`."""
        rows, heads, queries, _ = query.shape
        steps, keys = added.shape[3:]
        query, key, value = (each.reshape(rows * heads, -1, each.shape[3]) for each in (query, key, value))
        scores = torch.bmm(query, key.mT).view(rows, heads, -1, steps, keys)
        shares = softmax(torch.add(added, scores, alpha=scale)).view(rows * heads, queries, keys)
        ctx.save_for_backward(query, key, value, shares)
        ctx.scale, ctx.shape = scale, (rows, heads)
        mixed: Tensor = torch.bmm(shares, value).view(rows, heads, queries, -1)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of queries, keys and values."""
        query, key, value, shares = ctx.saved_tensors
        gradient = gradient.reshape(query.shape)
        of_value = torch.bmm(shares.mT, gradient)
        of_shares = torch.bmm(gradient, value.mT).mul_(shares)
        of_scores = of_shares.addcmul_(shares, of_shares.sum(dim=2, keepdim=True), value=-1).mul_(ctx.scale)
        made = (torch.bmm(of_scores, key), torch.bmm(of_scores.mT, query), of_value)
        return (*(each.unflatten(0, ctx.shape) for each in made), None, None)


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, *, scaling: float, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attend as transformers asks an attention function to.

    Args:
        module: Whose attention it is.
        query: `[B, n heads, Q, d]`.
        key: `[B, heads, S, d]`; each serves n query heads.
        value: As the keys.
        mask: Added to scores, `[B, 1, Q, S]`: minus infinity where a query must not look.
        scaling: Multiplies scores.
        kwargs: What else transformers says, of no weight here.

    Returns:
        `[B, Q, n heads, d]`, and no weights.
    """
    (rows, heads, steps, size), few = query.shape, key.shape[1]
    made: Tensor = _Attention.apply(query.reshape(rows, few, -1, size), key, value, mask[:, :, None], scaling)
    return made.reshape(rows, heads, steps, size).transpose(1, 2), None


AttentionInterface.register(NAME, attend)
