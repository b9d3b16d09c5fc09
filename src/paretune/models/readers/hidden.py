"""Hidden states: a stream of every expert up to one block, mixed there, and one stream behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from paretune.core.errors import ModelError
from paretune.core.model_config import check_block
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.mixing import GateFrom, Mixing
from paretune.models.readers.streams import Streams

FINAL_NORM = {"gpt2": "ln_f", "llama": "norm", "qwen2": "norm"}  # by model_type, the kinds of `BLOCKWISE`


class HiddenStates:
    """`h = sum_e g_e h_e` behind block l, read on by one stream under no expert or under the soup of the same weights.

    A row's scale s weighs the experts by `s g` and the base model's own stream by `1 - s`, so that 0 is the base model
    exactly, and 1 mixes what g says, which need not sum to one.

    Behind the last block there is nothing left to read on. Mixed before the final norm, states are logits mixed with
    weights `g_e size(h_e) / size(sum_j g_j h_j)`; mixed after it, in front of a head without bias, log-probabilities.
    """

    def __init__(self, base: BaseModel, bank: ExpertBank, mixing: Mixing) -> None:
        """Prepare a pass.

        Raises:
            ModelError: If the model is of a kind whose blocks are not known to take fewer rows than it was given, or
                has no such block.
        """
        self.base, self.bank = base, bank
        self.streams = Streams(mixing)
        self.block = check_block(base.model.config.to_dict(), base.name, mixing.block)
        self.widest = len(self.streams)
        narrow = len(bank.blocks) - self.block - 1
        self.norm: nn.Module | None = None
        if mixing.norm == "after":
            if narrow:
                raise ModelError(
                    f"states must be mixed behind the last block, {len(bank.blocks) - 1}, to be mixed after the final "
                    f"norm, got block {self.block}. Name the last block."
                )
            body: Any = base.model.base_model
            self.norm = body.get_submodule(FINAL_NORM[base.model.config.model_type])
        self.cost = (self.widest * (self.block + 1) + narrow) / len(bank.blocks)
        self._behind: tuple[Mixing, Mixing] | None = None

    def forward(self, mixing: Mixing, arguments: dict[str, Any], keep: int, gate_from: GateFrom = 0) -> Tensor:
        """Return the logits of the last `keep` positions, `[N, keep, V]`; see `Level.forward`."""
        blocks = self.bank.blocks
        before, behind = self.streams.mixing(mixing.batch), self._continued(mixing)
        by_block = [before if number <= self.block else behind for number in range(len(blocks))]
        weights = self.streams.weights(mixing).to(self.base.device)
        with self.bank.using_by_block(by_block), _mixed_behind(blocks, self.block, weights, self.norm):
            logits: Tensor = self.base.model(**self.streams.spread(arguments), logits_to_keep=keep).logits
        return logits

    def cache_rows(self, layer: int, index: Tensor, rows: int) -> Tensor:
        """Return the rows of all streams up to the block, one a row behind it."""
        return self.streams.cache_rows(index, rows) if layer <= self.block else index

    def _continued(self, mixing: Mixing) -> Mixing:
        if self._behind is None or self._behind[0] is not mixing:  # decoding asks at every token
            reference = mixing.continued == "base"
            made = Mixing.reference(mixing.batch) if reference else Mixing.of_rows(mixing.dense())
            self._behind = (mixing, made)
        return self._behind[1]


@contextmanager
def _mixed_behind(
    blocks: Sequence[nn.Module], block: int, weights: Tensor, norm: nn.Module | None = None
) -> Iterator[None]:
    """Mix the states that leave a block, or a norm, and cut what later blocks are given beside them down to N rows."""
    rows, streams = weights.shape
    hooks = [(norm or blocks[block]).register_forward_hook(partial(_mix, weights))]
    cut = partial(_cut, rows, streams)
    hooks += [later.register_forward_pre_hook(cut, with_kwargs=True) for later in blocks[block + 1 :]]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _mix(weights: Tensor, block: nn.Module, args: tuple[Any, ...], hidden: Tensor) -> Tensor:
    """Return `sum_s weights_ns h_sn`, `[N, T, H]`."""
    rows, streams = weights.shape
    states = hidden.view(streams, rows, *hidden.shape[1:])
    # summed in fp32: a weight of one then leaves the state as it is, whatever its number format
    return torch.einsum("ns,snth->nth", weights.float(), states.float()).to(hidden.dtype)


def _cut(
    rows: int, streams: int, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Keep the first stream's rows of masks, positions and their embeddings: those of the others are the same."""
    hidden, *others = args

    def cut(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(cut(each) for each in value)
        whole = isinstance(value, Tensor) and value.ndim > 1 and len(value) == rows * streams
        return value[:rows] if whole else value

    return (hidden, *(cut(each) for each in others)), {name: cut(value) for name, value in kwargs.items()}
