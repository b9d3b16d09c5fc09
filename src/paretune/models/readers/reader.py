"""The reader: rows of prompts and of the tokens so far in, logits of the next tokens out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.mixing import GateFrom, Mixing
from paretune.models.readers.cache import make_cache, take_rows
from paretune.models.readers.copies import copies
from paretune.models.readers.few_keys import attending
from paretune.models.readers.inputs import causal, distinct, left_pad, positions_of
from paretune.models.readers.levels import level_of
from paretune.models.readers.two_parts import TwoPartCache, reads_in_two_parts


@dataclass(eq=False)
class Past:
    """What has been read of B rows, for the tokens to come.

    Attributes:
        mixing: Of the rows.
        cache: Keys and values, of as many rows in each layer as the level keeps.
        real: Which tokens are real, those to come included, `[B, S]`.
        padding: Padded tokens before each row's prompt, `[B]`.
        tokens: Tokens read, padding included.
        padded: Whether there is padding at all.
    """

    mixing: Mixing
    cache: Any
    real: Tensor
    padding: Tensor
    tokens: int
    padded: bool


class Reader:
    """Feeds rows to a model under their mixing, at the level where that mixes.

    Sampling reads prompts (`prefill`), then token by token (`extend`), and lets rows go (`take`). Scoring reads
    `heads` of prompts and the completions behind them; all else reads `whole` sequences.
    """

    def __init__(self, base: BaseModel, bank: ExpertBank | None, mixing: Mixing) -> None:
        """Prepare to read.

        Args:
            base: The base model.
            bank: Its experts; None reads under the base model alone.
            mixing: Of the rows, B of them. Those that are read later are some of `self.mixing`, in which a row gate
                has chosen.
        """
        self.base, self.mixing = base, Mixing.reference(mixing.batch) if bank is None else mixing.resolved()
        self.level = level_of(base, bank, self.mixing)

    @property
    def cost(self) -> float:
        """Passes through the network that one token of one row takes; what a ledger charges."""
        return self.level.cost

    def whole(
        self,
        ids: Tensor,
        real: Tensor,
        keep: int,
        gate_from: GateFrom = 0,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Read whole sequences in one pass and return the logits of the last `keep` tokens, `[B, keep, V]`.

        Args:
            ids: `[B, S]`.
            real: Which of them are real, `[B, S]`.
            keep: Number of tokens.
            gate_from: First token that the mixing's gate weighs: one for all rows, or one for each.
            mask: Which tokens each one attends to, `[B, 1, S, S]`; by default all earlier real ones.
            positions: `[B, S]`; by default counted over real tokens.
        """
        arguments: dict[str, Any] = {
            "input_ids": ids, "attention_mask": real.long() if mask is None else mask, "use_cache": False,
        }  # fmt: skip
        if self.base.takes_positions:
            arguments["position_ids"] = positions_of(real) if positions is None else positions
        return self.level.forward(self.mixing, arguments, keep, gate_from)

    def prefill(self, prompts: Sequence[Sequence[int]], room: int, share: bool = True) -> tuple[Past, Tensor]:
        """Read each distinct prompt once, for all its rows.

        Args:
            prompts: Token ids of each row's prompt.
            room: Tokens to come.
            share: Whether prompts that are equal and mixed equally are read once.

        Returns:
            What was read, and the logits of the first token of each completion, `[B, V]`, fp32.
        """
        keys = self.mixing.group_keys() if share else [str(row).encode() for row in range(len(prompts))]
        first, owner = distinct(prompts, keys)
        ids, real = left_pad(self.base, [prompts[row] for row in first])
        size = ids.shape[1]
        padding = size - real.sum(dim=1)
        cache = make_cache(self.base.model.config, size, self.base.full_attention)
        past = Past(self.mixing.rows(torch.tensor(first)), cache, real, padding, 0, bool((padding > 0).any()))
        logits = self._read(past, ids, positions_of(real), gate_from=size - 1)
        index = torch.tensor(owner, device=self.base.device)

        def owner_of(layer: int) -> Tensor:
            return self.level.cache_rows(layer, index, len(first))

        if reads_in_two_parts(self.base, cache.layers[0].keys[0].numel() * len(owner_of(0))):
            past.cache = TwoPartCache(cache, owner_of, real if past.padded else None, room)
        else:  # every row gets its copy
            take_rows(cache, owner_of, size + room)
        past.mixing, past.real, past.padding = self.mixing, real[index], padding[index]
        more = torch.ones(len(index), room, dtype=torch.bool, device=self.base.device)
        past.real = torch.cat([past.real, more], dim=1)
        return past, logits[index]

    def extend(self, past: Past, tokens: Tensor) -> Tensor:
        """Read one more token of each row, `[B]`, and return the logits of the next one, `[B, V]`, fp32."""
        return self._read(past, tokens[:, None], (past.tokens - past.padding)[:, None])

    def take(self, past: Past, index: Tensor) -> None:
        """Keep the rows of `index` `[B']`, in its order, repeated where it repeats; changes `past` in place."""
        rows = past.mixing.batch

        def index_of(layer: int) -> Tensor:
            return self.level.cache_rows(layer, index, rows)

        if isinstance(past.cache, TwoPartCache):
            past.cache.take_rows(index_of)
        else:
            take_rows(past.cache, index_of)
        past.mixing, past.real, past.padding = past.mixing.rows(index), past.real[index], past.padding[index]

    def _read(self, past: Past, ids: Tensor, positions: Tensor, gate_from: int = 0) -> Tensor:
        """Run the model on new tokens `[B, T]` and return the logits of the last one, `[B, V]`."""
        seen, cache = past.tokens + ids.shape[1], past.cache
        arguments: dict[str, Any] = {"input_ids": ids, "attention_mask": self._mask(past, ids)}
        if self.base.takes_positions:
            arguments["position_ids"] = positions
        plain = nullcontext({"past_key_values": cache})
        with cache.attending(self.base.model.config) if isinstance(cache, TwoPartCache) else plain as given:
            logits = self.level.forward(past.mixing, arguments | given, 1, gate_from)
        past.tokens = seen
        return logits[:, -1].float()

    def _mask(self, past: Past, ids: Tensor) -> Tensor | None:
        seen = past.real[:, : past.tokens + ids.shape[1]]
        alone = ids.shape[1] == 1 and self.base.full_attention
        if isinstance(past.cache, TwoPartCache) or (past.padded and alone):
            return seen[:, None, None, :]  # ready-made: transformers would build it anew at every token
        # where nothing is padded, a mask says just that
        return seen if past.padded or self._looks_padded(ids) else None

    def _looks_padded(self, ids: Tensor) -> bool:
        """Whether transformers takes the batch for a padded one, for a token that pads elsewhere and is real here."""
        pad = getattr(self.base.model.config, "pad_token_id", None)
        return pad is not None and bool((ids[:, [0, -1]] == pad).any())

    def heads(self, prompts: Sequence[Sequence[int]]) -> PromptHeads:
        """Read all but the last token of each distinct prompt, in a way that gradients flow through."""
        return PromptHeads(self, prompts)


class PromptHeads:
    """Distinct prompts, read once under their mixing; their keys and values serve all their completions.

    The last prompt token is left to be read with the completion, so that one pass yields the logits of all its tokens.
    No token before it is gated: rows whose gates differ share a prompt where they agree on what is before the gate.

    Attributes:
        owner: Which of the distinct prompts each row has, `[B]`.
        cache: Keys and values of the distinct prompts, layer by layer.
    """

    def __init__(self, reader: Reader, prompts: Sequence[Sequence[int]]) -> None:
        from transformers import DynamicCache

        self.reader, base = reader, reader.base
        first, owner = distinct(prompts, reader.mixing.group_keys(gated=False))
        self.owner = torch.tensor(owner)
        self.last = torch.tensor([prompt[-1] for prompt in prompts])
        # a prompt of one token has no head; its row attends to nothing before
        heads = [list(prompts[row][:-1]) for row in first]
        ids, self.real = left_pad(base, heads) if any(heads) else left_pad(base, [[base.pad_id]] * len(heads))
        self.real = self.real if any(heads) else torch.zeros_like(self.real)
        self.cache: Any = DynamicCache(config=base.model.config)
        arguments: dict[str, Any] = {
            "input_ids": ids, "attention_mask": causal(self.real, ids.shape[1]), "past_key_values": self.cache,
        }  # fmt: skip
        if base.takes_positions:
            arguments["position_ids"] = positions_of(self.real)
        mixing = reader.mixing.rows(torch.tensor(first))
        with attending(base, arguments) as given:
            reader.level.forward(mixing, given, keep=1, gate_from=ids.shape[1])

    def states(self, rows: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return keys and values of some rows' prompts, layer by layer: copies through which gradients flow.

        Args:
            rows: Which rows, `[B']`.
        """
        owners, level = self.owner[rows].to(self.reader.base.device), self.reader.level
        found = []
        for number, layer in enumerate(self.cache.layers):
            index = level.cache_rows(number, owners, len(self.real))
            found.append((copies(layer.keys, index), copies(layer.values, index)))
        return found

    def completion_logits(
        self, rows: Tensor, token_ids: Tensor, mixing: Mixing, states: Sequence[tuple[Tensor, Tensor]]
    ) -> Tensor:
        """Return the logits of every token of some rows' completions, `[B', T, V]`.

        Args:
            rows: Which rows, `[B']`.
            token_ids: Their completions, `[B', T]`.
            mixing: Of these rows.
            states: Keys and values of their prompts.
        """
        from transformers import DynamicCache

        base, steps = self.reader.base, token_ids.shape[1]
        cache: Any = DynamicCache(config=base.model.config)
        for number, (keys, values) in enumerate(states):
            cache.update(keys, values, number)
        real = self.real[self.owner[rows].to(base.device)]
        new = torch.ones(len(rows), steps, dtype=torch.bool, device=base.device)
        last = self.last[rows].to(base.device)
        arguments: dict[str, Any] = {
            "input_ids": torch.cat([last[:, None], token_ids[:, :-1]], dim=1),
            "attention_mask": causal(torch.cat([real, new], dim=1), steps),
            "past_key_values": cache,
        }
        if base.takes_positions:
            arguments["position_ids"] = real.sum(dim=1)[:, None] + torch.arange(steps, device=base.device)[None, :]
        with attending(base, arguments) as given:
            return self.reader.level.forward(mixing, given, keep=steps)
