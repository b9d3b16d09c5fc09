"""Decoding with the keys of each prompt held once: rows attend to their prompt together, to their own tokens alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.cache_utils import Cache, DynamicLayer

from paretune.models.base import BaseModel
from paretune.models.readers.cache import BufferedCache
from paretune.models.readers.few_keys import attends_plainly, attention_named, softmax

NAME = "paretune_two_parts"  # of `attend` among the attention functions of transformers
LEAST = (
    2**17
)  # numbers in the repeated keys of a layer: with fewer, the steps between the parts cost more than they save


def reads_in_two_parts(base: BaseModel, repeated: int) -> bool:
    """Whether a model decodes in two parts: where that is the same attention, and was measured to be faster.

    The same: all layers attend to all earlier tokens, in a kind of model that neither caps scores nor adds to them.
    Faster: in fp32 on a processor, for many or long rows. Elsewhere prompts are repeated for every row; in bf16, scores
    that are held between the parts would lose digits.

    Args:
        base: The model.
        repeated: Numbers in the keys of one layer's prompts, were they repeated for every row.
    """
    return attends_plainly(base) and repeated >= LEAST


@dataclass(frozen=True, eq=False)
class Groups:
    """Rows of equal prompts side by side, in groups of one width; places that no row fills are computed and not read.

    Attributes:
        width: Places of a group.
        slot: Place of each row, `[B]`.
        place: Row of each place, `[groups * width]`, any row where there is none; None where places are rows.
    """

    width: int
    slot: Tensor
    place: Tensor | None

    @property
    def owner(self) -> Tensor:
        """Group of each row, `[B]`."""
        return self.slot // self.width

    def spread(self, rows: Tensor) -> Tensor:
        """Return `[heads, B, ...]` by places, `[heads, groups * width, ...]`."""
        return rows if self.place is None else rows.index_select(1, self.place)

    def back(self, places: Tensor) -> Tensor:
        """Return `[heads, groups * width, ...]` by rows, `[heads, B, ...]`."""
        return places if self.place is None else places.index_select(1, self.slot)


def group_rows(owner: Tensor) -> tuple[Tensor, Groups]:
    """Group rows by their prompts.

    Groups are as wide as the largest prompt has rows, unless more than half of the places would stay empty: then as the
    mean, and a prompt of many rows has several groups.

    Args:
        owner: Which prompt each row has, `[B]`.

    Returns:
        The prompt of each group, and the groups.

    Example:
        >>> prompts, groups = group_rows(torch.tensor([4, 2, 4]))
        >>> prompts.tolist(), groups.width, groups.slot.tolist()
        ([2, 4], 2, [2, 0, 3])
    """
    kept, owner, counts = owner.unique(return_inverse=True, return_counts=True)
    width = int(counts.max())
    if len(kept) * width > 2 * len(owner):
        width = len(owner) // len(kept)
    order = owner.argsort(stable=True)
    sorted_owner, every = owner[order], torch.arange(len(owner), device=owner.device)
    rank = every - (counts.cumsum(0) - counts)[sorted_owner]  # among the rows of its prompt
    needed = (counts + width - 1) // width
    slot = torch.empty_like(owner)
    slot[order] = ((needed.cumsum(0) - needed)[sorted_owner] + rank // width) * width + rank % width
    prompts = kept.repeat_interleave(needed)
    place = torch.zeros(len(prompts) * width, dtype=torch.long, device=owner.device)
    place[slot] = every
    return prompts, Groups(width, slot, None if slot.equal(every) and len(place) == len(slot) else place)


def attend_in_two_parts(
    query: Tensor,
    prompt: tuple[Tensor, Tensor],
    own: tuple[Tensor, Tensor],
    groups: Groups,
    scale: float,
    bias: Tensor | None = None,
) -> Tensor:
    """Attend to the keys of a row's prompt and to its own, `softmax(scale q [prompt, own]') [prompt, own]`.

    Heads come first: the places of a group and the query heads of one key head are then one dimension of a product,
    without copying.

    Args:
        query: One token of each row, `[B, Q, 1, d]`; Q is a multiple of the key heads.
        prompt: Keys and values of each group's prompt, `[heads, groups, P, d]`.
        own: Keys and values of each row's own tokens, `[heads, B, T, d]`.
        groups: Of the rows.
        scale: Multiplies the scores.
        bias: Added to the scores of a prompt's keys, `[heads, groups, 1, P]`: minus infinity where one is padding.

    Returns:
        `[B, 1, Q, d]`.
    """
    heads, rows, tokens, size = own[0].shape
    (count, length), each = prompt[0].shape[1:3], query.shape[1] // heads
    by_row = query.reshape(rows, heads, each, size).transpose(0, 1).contiguous()
    by_group = groups.spread(by_row).view(heads * count, -1, size)
    none = query.new_zeros(1, 1, 1)
    added, weight = (none, 0) if bias is None else (bias.flatten(0, 1), 1)
    shared = torch.baddbmm(added, by_group, prompt[0].flatten(0, 1).mT, beta=weight, alpha=scale)
    alone = torch.baddbmm(none, by_row.flatten(0, 1), own[0].flatten(0, 1).mT, beta=0, alpha=scale)
    shared = groups.back(shared.view(heads, -1, each, length)).flatten(0, 1)
    shares = softmax(torch.cat([shared, alone], dim=2)).view(heads, rows, each, length + tokens)
    by_group = groups.spread(shares).view(heads * count, -1, length + tokens)[:, :, :length]
    mixed = torch.bmm(by_group, prompt[1].flatten(0, 1)).view(heads, -1, each, size)
    mixed = groups.back(mixed).flatten(0, 1).baddbmm_(shares.flatten(0, 1)[:, :, length:], own[1].flatten(0, 1))
    return mixed.view(heads, rows, each, size).transpose(0, 1).reshape(rows, 1, heads * each, size)


class TwoPartLayer(DynamicLayer):
    """A layer's cache: keys and values of each group's prompt, and buffers for the tokens of every row."""

    def __init__(self, keys: Tensor, values: Tensor, real: Tensor | None, rows: int, room: int) -> None:
        """Take over prompts that were read.

        Args:
            keys: Of the prompts, `[prompts, heads, P, d]`.
            values: The same of their values.
            real: Which of their tokens are real, `[prompts, P]`; None where all are.
            rows: Rows to come.
            room: Tokens to come.
        """
        super().__init__()
        self.prompt = (keys.transpose(0, 1).contiguous(), values.transpose(0, 1).contiguous())
        heads, self.before = keys.shape[1:3]
        self.own = tuple(part.new_empty(heads, rows, room, part.shape[3]) for part in self.prompt)
        self.bias: Tensor | None = None
        if real is not None:
            bias = torch.zeros(real.shape, device=real.device).masked_fill(~real, -torch.inf)
            self.bias = bias[None, :, None].repeat(heads, 1, 1, 1)
        self.length = 0
        self.groups: Groups

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append the next token of each row, `[B, heads, 1, d]`; attention reads the layer itself."""
        for buffer, states in zip(self.own, (key_states, value_states), strict=True):
            buffer[:, :, self.length] = states[:, :, 0].transpose(0, 1)
        self.length += 1
        return key_states, value_states

    def get_seq_length(self) -> int:
        """Return the number of tokens held of each row, its prompt included."""
        return self.before + self.length

    def group(self, prompts: Tensor, groups: Groups) -> None:
        """Give each group its prompt, one of those that are held."""
        self.groups = groups
        if not prompts.equal(torch.arange(self.prompt[0].shape[1], device=prompts.device)):
            self.prompt = (self.prompt[0].index_select(1, prompts), self.prompt[1].index_select(1, prompts))
            self.bias = None if self.bias is None else self.bias.index_select(1, prompts)

    def take_rows(self, index: Tensor) -> None:
        """Keep the own tokens of the rows `index`, in its order, repeated where it repeats."""
        made = []
        for buffer in self.own:
            new = buffer.new_empty(buffer.shape[0], len(index), *buffer.shape[2:])
            torch.index_select(buffer[:, :, : self.length], 1, index, out=new[:, :, : self.length])
            made.append(new)
        self.own = tuple(made)

    def attend(self, query: Tensor, scale: float) -> Tensor:
        """Attend to all that is held, `[B, Q, 1, d]` to `[B, 1, Q, d]`."""
        keys, values = (buffer[:, :, : self.length] for buffer in self.own)
        return attend_in_two_parts(query, self.prompt, (keys, values), self.groups, scale, self.bias)


class TwoPartCache(Cache):
    """Keys of each prompt once, and own tokens of every row, for models that `reads_in_two_parts` names."""

    def __init__(self, read: BufferedCache, index_of: Callable[[int], Tensor], real: Tensor | None, room: int) -> None:
        """Give rows the prompts that were read.

        Args:
            read: Prompts, one a row of each layer.
            index_of: Which prompt each row of a layer has, by the layer's number.
            real: Which tokens of the prompts are real, `[D, P]`; layers that hold them several times repeat it. None
                where all are.
            room: Tokens to come.
        """
        self.parts = []
        held: Any = read.layers
        for number, layer in enumerate(held):
            own = None if real is None else real.repeat(len(layer.keys) // len(real), 1)
            self.parts.append(TwoPartLayer(layer.keys, layer.values, own, len(index_of(number)), room))
        super().__init__(layers=list(self.parts))
        self._group(index_of)

    def take_rows(self, index_of: Callable[[int], Tensor]) -> None:
        """Keep, reorder or repeat rows in all layers, and let go of prompts that no row has any more."""
        indices = [index_of(number) for number in range(len(self.parts))]
        owners = [layer.groups.owner[index] for layer, index in zip(self.parts, indices, strict=True)]
        for layer, index in zip(self.parts, indices, strict=True):
            layer.take_rows(index)
        self._group(lambda number: owners[number])

    def _group(self, owner_of: Callable[[int], Tensor]) -> None:
        made: dict[int, tuple[Tensor, Groups]] = {}  # layers of equally many rows hold the same ones
        for number, layer in enumerate(self.parts):
            owner = owner_of(number)
            if len(owner) not in made:
                made[len(owner)] = group_rows(owner)
            layer.group(*made[len(owner)])

    @contextmanager
    def attending(self, config: Any) -> Iterator[dict[str, Any]]:
        """Let the model of a configuration attend in two parts; yields what its forward pass must be given."""
        with attention_named(config, NAME):
            yield {"past_key_values": self, "two_part_cache": self}


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *,
    scaling: float, two_part_cache: TwoPartCache, **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attend as transformers asks an attention function to: a layer's cache holds keys, values, and what is padding."""
    number: Any = module.layer_idx
    return two_part_cache.parts[number].attend(query, scaling), None


AttentionInterface.register(NAME, attend)
