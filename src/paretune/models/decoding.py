"""The one decoding loop: all methods, all preferences, training and serving sample here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paretune.core.errors import ModelError, ShapeError
from paretune.core.seeds import uniforms
from paretune.models.bank import ExpertBank, GateFrom
from paretune.models.base import BaseModel
from paretune.models.cache import make_cache, take_rows
from paretune.models.mixing import Mixing

SHRINK_AT = 0.75  # rows leave once a quarter has finished: each departure copies the cache of those that stay


@dataclass(frozen=True, eq=False)
class Rollout:
    """Sampled token ids, in the order of the rows asked for.

    Attributes:
        token_ids: `[B, T]`, the end-of-text token included, filled up with the pad id.
        lengths: Tokens of each row, `[B]`.
        log_probs: Of each sampled token under the model that sampled it, at temperature 1 and without top-p, in
            nats, 0 behind the end, `[B, T]`.
        ended: Whether the row ended by itself (end-of-text) rather than at the limit, `[B]`.
        latency_seconds: From the start of the batch until the row's last token, `[B]`.
    """

    token_ids: Tensor
    lengths: Tensor
    log_probs: Tensor
    ended: Tensor
    latency_seconds: NDArray[np.float64]


@torch.no_grad()
def sample(
    base: BaseModel,
    bank: ExpertBank | None,
    prompts: Sequence[Sequence[int]],
    mixing: Mixing,
    keys: NDArray[np.uint64],
    max_new_tokens: int,
    temperature: Tensor | None = None,
    top_p: Tensor | None = None,
    share_prefill: bool = True,
    end_ids: Sequence[int] | None = None,
) -> Rollout:
    """Sample one completion per row.

    Prompts that are equal and mixed equally are read once; finished rows leave the batch. Each row draws from its own
    stream of uniforms, one inverse-CDF draw a token, so its noise is the same in any batch.

    Args:
        base: The base model.
        bank: Its bank of experts; None samples from the base model alone.
        prompts: Token ids of each row's prompt, B of them.
        mixing: Expert weights of the rows; ignored without a bank.
        keys: Keys of the rows' noise, `[B]`, from `core.seeds.row_keys`.
        max_new_tokens: Longest completion.
        temperature: Per row, `[B]`; all 1 when left out.
        top_p: Per row, `[B]`; all 1 when left out.
        share_prefill: Whether equal rows share the reading of their prompt.
        end_ids: Token ids that end a completion; by default the base model's. None at all: every row runs to the limit.

    Raises:
        ShapeError: If the arguments disagree on the number of rows, or a prompt is empty.
        ModelError: If prompt and completion do not fit into the model's context.
    """
    rows = len(prompts)
    if rows == 0 or any(len(prompt) == 0 for prompt in prompts):
        raise ShapeError("prompts must be non-empty lists of token ids, got an empty one. Check the template.")
    if len(keys) != rows or (bank is not None and mixing.batch != rows):
        raise ShapeError(f"keys and mixing must have one row per prompt ({rows}), got {len(keys)}, {mixing.batch}.")
    longest = max(len(prompt) for prompt in prompts)
    if base.context_tokens is not None and longest + max_new_tokens > base.context_tokens:
        raise ModelError(
            f"prompt and completion must fit into the model's context of {base.context_tokens} tokens, got {longest} "
            f"and {max_new_tokens}. Lower max_prompt_tokens or max_completion_tokens."
        )
    if bank is None:
        mixing = Mixing.reference(rows)
    start = time.perf_counter()
    loop = _Loop(base, bank, mixing, keys, longest, max_new_tokens, start, base.end_ids if end_ids is None else end_ids)
    loop.set_warping(temperature, top_p)
    loop.prefill(prompts, share_prefill)
    loop.run()
    return loop.rollout()


class _Loop:
    """State of one batch while it is decoded; `at` maps the rows still in the batch to the rows asked for."""

    def __init__(
        self, base: BaseModel, bank: ExpertBank | None, mixing: Mixing, keys: NDArray[np.uint64],
        prompt_tokens: int, max_new_tokens: int, start: float, end_ids: Sequence[int],
    ) -> None:  # fmt: skip
        self.base, self.bank, self.mixing, self.start = base, bank, mixing, start
        self.device = base.device
        rows = len(keys)
        self.prompt_tokens, self.max_new_tokens = prompt_tokens, max_new_tokens
        draws = uniforms(keys, 0, max_new_tokens)
        self.noise = torch.from_numpy(draws).to(self.device, torch.float32 if self.device.type == "mps" else None)
        self.token_ids = torch.full((rows, max_new_tokens), base.pad_id, device=self.device)
        self.log_probs = torch.zeros(rows, max_new_tokens, device=self.device)
        self.lengths = torch.full((rows,), max_new_tokens, device=self.device)
        self.ended = torch.zeros(rows, dtype=torch.bool, device=self.device)
        self.latency = np.zeros(rows)
        self.end_ids = torch.tensor(list(end_ids), dtype=torch.long, device=self.device)
        self.at = torch.arange(rows, device=self.device)
        self.temperature: Tensor | None = None
        self.top_p: Tensor | None = None
        self.logits = torch.empty(0)
        self.cache: Any = None
        self.mask = torch.empty(0)
        self.padding = torch.empty(0)

    def set_warping(self, temperature: Tensor | None, top_p: Tensor | None) -> None:
        rows = len(self.at)
        for name, value in (("temperature", temperature), ("top_p", top_p)):
            if value is None:
                continue
            if value.shape != (rows,) or not bool((value > 0).all()) or (name == "top_p" and bool((value > 1).any())):
                rule = "in (0, 1]" if name == "top_p" else "positive"
                raise ShapeError(f"{name} must be {rule}, one per row ({rows}), got {value.tolist()}.")
            if not bool((value == 1).all()):
                setattr(self, name, value.to(self.device, torch.float32))

    def prefill(self, prompts: Sequence[Sequence[int]], share: bool) -> None:
        """Read each distinct prompt once, then give every row its copy."""
        groups = self.mixing.group_keys()
        seen: dict[tuple[bytes, tuple[int, ...]], int] = {}
        first: list[int] = []
        owner: list[int] = []
        for row, prompt in enumerate(prompts):
            identity = (groups[row], tuple(prompt)) if share else (str(row).encode(), ())
            if identity not in seen:
                seen[identity] = len(first)
                first.append(row)
            owner.append(seen[identity])
        ids = torch.full((len(first), self.prompt_tokens), self.base.pad_id, device=self.device)
        real = torch.zeros(len(first), self.prompt_tokens, dtype=torch.bool, device=self.device)
        for number, row in enumerate(first):
            size = len(prompts[row])
            ids[number, -size:] = torch.tensor(prompts[row], device=self.device)
            real[number, -size:] = True
        tokens = self.prompt_tokens + self.max_new_tokens
        self.cache = make_cache(self.base.model.config, self.prompt_tokens, self.base.full_attention)
        self.mask, self.padding = real, self.prompt_tokens - real.sum(dim=1)
        self.padded = bool((self.padding > 0).any())
        mixing = self.mixing.rows(torch.tensor(first))
        positions = (real.cumsum(dim=1) - 1).clamp(min=0)
        logits = self._forward(ids, positions, mixing, gate_from=self.prompt_tokens - 1)
        index = torch.tensor(owner, device=self.device)
        take_rows(self.cache, index, tokens)
        self.logits, self.mask, self.padding = logits[index], real[index], self.padding[index]
        room = torch.ones(len(index), self.max_new_tokens, dtype=torch.bool, device=self.device)
        self.mask = torch.cat([self.mask, room], dim=1)

    def _forward(self, ids: Tensor, positions: Tensor, mixing: Mixing, gate_from: int = 0) -> Tensor:
        """Run the model on new tokens `[B, T]` and return the logits of the last one, `[B, V]`."""
        mask: Tensor | None = None
        seen = self.cache.get_seq_length() + ids.shape[1]
        if ids.shape[1] > 1:
            mask = self.mask if self.padded else None
        elif self.padded:
            mask = self.mask[:, :seen]
            if self.base.full_attention:
                mask = mask[:, None, None, :]  # ready-made: transformers would build it anew at every token
        if mask is None and self._looks_padded(ids):
            mask = self.mask[:, :seen]  # all true: it says that this is no padding, and changes nothing else
        arguments: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "past_key_values": self.cache}
        if self.base.takes_positions:
            arguments["position_ids"] = positions
        return forward_logits(self.base, self.bank, mixing, arguments, 1, gate_from)[:, -1].float()

    def _looks_padded(self, ids: Tensor) -> bool:
        """Whether transformers takes the batch for a padded one, for a token that pads elsewhere and is real here."""
        pad = getattr(self.base.model.config, "pad_token_id", None)
        return pad is not None and bool((ids[:, [0, -1]] == pad).any())

    def run(self) -> None:
        alive = torch.ones(len(self.at), dtype=torch.bool, device=self.device)
        for step in range(self.max_new_tokens):
            tokens, log_probs = draw(self.logits, self.noise[self.at, step], self.temperature, self.top_p)
            # rows that have ended stay until enough of them can leave together; what they draw does not count
            self.token_ids[self.at, step] = torch.where(alive, tokens, self.base.pad_id)
            self.log_probs[self.at, step] = torch.where(alive, log_probs, 0.0)
            stops = torch.isin(tokens, self.end_ids) & alive
            last = step == self.max_new_tokens - 1
            if last or bool(stops.any()):
                now = time.perf_counter() - self.start
                self.latency[self.at[alive if last else stops].cpu().numpy()] = now
                stopped = self.at[stops]
                self.ended[stopped] = True
                self.lengths[stopped] = step + 1
                alive = alive & ~stops
                left = int(alive.sum())
                if last or left == 0:
                    return
                if left <= SHRINK_AT * len(self.at):
                    tokens, alive = self._drop(tokens, alive)
            positions = (self.prompt_tokens + step - self.padding)[:, None]
            self.logits = self._forward(tokens[:, None], positions, self.mixing)

    def _drop(self, tokens: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
        """Let finished rows leave; return tokens and liveness of those that stay."""
        index = self.mixing.keep(alive.cpu()).to(self.device)
        if len(index) == len(self.at):
            return tokens, alive
        self.mixing = self.mixing.rows(index)
        take_rows(self.cache, index)
        self.at, self.mask, self.padding = self.at[index], self.mask[index], self.padding[index]
        self.temperature = None if self.temperature is None else self.temperature[index]
        self.top_p = None if self.top_p is None else self.top_p[index]
        return tokens[index], alive[index]

    def rollout(self) -> Rollout:
        used = int(self.lengths.max())
        return Rollout(
            token_ids=self.token_ids[:, :used],
            lengths=self.lengths,
            log_probs=self.log_probs[:, :used],
            ended=self.ended,
            latency_seconds=self.latency,
        )


def forward_logits(
    base: BaseModel, bank: ExpertBank | None, mixing: Mixing, arguments: dict[str, Any], keep: int,
    gate_from: GateFrom = 0,
) -> Tensor:  # fmt: skip
    """Run the base model under a mixing and return the logits of the last `keep` positions, `[B, keep, V]`.

    Without a bank it is the base model alone, even where someone else's bank wraps it. Tokens from `gate_from` on run
    under the mixing's gate, where it has one: see `ExpertBank.using`.
    """
    if bank is None:
        bank, mixing = getattr(base.model, "_paretune_bank", None), Mixing.reference(mixing.batch)
    if bank is None:
        logits: Tensor = base.model(**arguments, logits_to_keep=keep).logits
        return logits
    with bank.using(mixing, gate_from):
        mixed: Tensor = base.model(**arguments, logits_to_keep=keep).logits
    return mixed


def draw(
    logits: Tensor, noise: Tensor, temperature: Tensor | None = None, top_p: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Draw one token per row by inverting the cumulative distribution.

    Args:
        logits: `[B, V]`, fp32.
        noise: Uniforms in (0, 1), `[B]`.
        temperature: Divides the logits, `[B]`.
        top_p: Smallest probability mass kept, most likely tokens first, `[B]`.

    Returns:
        Token ids `[B]` and their log-probabilities at temperature 1 without top-p, `[B]`.

    Source:
        Holtzman et al. 2020 for top-p (nucleus) sampling.
    """
    log_probs = torch.log_softmax(logits, dim=-1)
    scaled = log_probs if temperature is None else torch.log_softmax(logits / temperature[:, None], dim=-1)
    probabilities = scaled.exp()
    if top_p is not None:
        probabilities = keep_nucleus(probabilities, top_p)
    cumulative = probabilities.cumsum(dim=-1)
    target = (noise * cumulative[:, -1].double()).float()[:, None]
    tokens = torch.searchsorted(cumulative, target).clamp(max=logits.shape[-1] - 1)
    return tokens[:, 0], log_probs.gather(1, tokens)[:, 0]


def keep_nucleus(probabilities: Tensor, top_p: Tensor) -> Tensor:
    """Zero all but the most likely tokens that together reach `top_p` `[B]`; the first token always stays."""
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(dim=-1) - ordered
    ordered = torch.where(before < top_p[:, None], ordered, torch.zeros_like(ordered))
    return torch.zeros_like(probabilities).scatter(1, order, ordered)
