"""Keys and values of past tokens, in buffers of their final length, with rows that can be copied and dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


class BufferedLayer(DynamicLayer):
    """A layer's cache that writes into a buffer of the final length instead of concatenating at every token.

    Departures:
        `DynamicLayer` of transformers copies all past tokens at every step; here a step writes one token per row.
    """

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.length = 0
        self.key_buffer: Tensor | None = None
        self.value_buffer: Tensor | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append `[B, heads, T, d]` and return everything so far."""
        if self.key_buffer is None or self.value_buffer is None:
            shape = (*key_states.shape[:2], self.tokens)
            self.key_buffer = key_states.new_empty(*shape, key_states.shape[3])
            self.value_buffer = value_states.new_empty(*shape, value_states.shape[3])
            self.dtype, self.device = key_states.dtype, key_states.device
            self.is_initialized = True
        end = self.length + key_states.shape[2]
        self.key_buffer[:, :, self.length : end] = key_states
        self.value_buffer[:, :, self.length : end] = value_states
        self.length = end
        self.keys, self.values = self.key_buffer[:, :, :end], self.value_buffer[:, :, :end]
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Return the number of tokens held."""
        return self.length

    def take_rows(self, index: Tensor, tokens: int | None = None) -> None:
        """Keep the rows of `index` `[B']`, in its order, repeated where it repeats; make room for `tokens` in all."""
        self.tokens = tokens or self.tokens
        for name in ("key_buffer", "value_buffer"):
            old: Tensor | None = getattr(self, name)
            if old is None:
                continue
            new = old.new_empty(len(index), old.shape[1], self.tokens, old.shape[3])
            torch.index_select(old[:, :, : self.length], 0, index, out=new[:, :, : self.length])
            setattr(self, name, new)
        if self.key_buffer is not None and self.value_buffer is not None:
            self.keys, self.values = self.key_buffer[:, :, : self.length], self.value_buffer[:, :, : self.length]


class BufferedCache(Cache):
    """Buffered layers for a model in which every layer attends to all earlier tokens."""

    def __init__(self, layers: int, tokens: int) -> None:
        self.buffered = [BufferedLayer(tokens) for _ in range(layers)]
        super().__init__(layers=list(self.buffered))

    def take_rows(self, index_of: Callable[[int], Tensor], tokens: int | None = None) -> None:
        """Keep, reorder or repeat rows in all layers."""
        for number, layer in enumerate(self.buffered):
            layer.take_rows(index_of(number), tokens)


def make_cache(config: Any, tokens: int, full_attention: bool) -> Any:
    """Return a cache for a model: buffered where all layers attend to everything, transformers' own otherwise."""
    from transformers import DynamicCache

    if full_attention:
        return BufferedCache(int(config.num_hidden_layers), tokens)
    return DynamicCache(config=config)


def take_rows(cache: Any, index_of: Callable[[int], Tensor], tokens: int | None = None) -> None:
    """Keep, reorder or repeat the rows of either kind of cache.

    Args:
        cache: Changed in place.
        index_of: Says which rows of a layer, by its number; layers may hold different numbers of rows.
        tokens: Make room for so many in all.
    """
    if isinstance(cache, BufferedCache):
        cache.take_rows(index_of, tokens)
        return
    for number, layer in enumerate(cache.layers):
        layer.batch_select_indices(index_of(number))
