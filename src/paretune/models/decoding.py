"""The one decoding loop: all methods, all preferences, training and serving sample here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paretune.core.errors import ModelError, ShapeError
from paretune.core.sampled import note_sampled
from paretune.core.seeds import uniforms
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.mixing import Mixing
from paretune.models.readers.reader import Past, Reader

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
        log_weights: Where the mixing is weighed: the sum over a row's tokens of log Z, `[B]`, by which the product of
            the experts over whole completions exceeds the probability of sampling this one; else None.
    """

    token_ids: Tensor
    lengths: Tensor
    log_probs: Tensor
    ended: Tensor
    latency_seconds: NDArray[np.float64]
    log_weights: Tensor | None = None


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
    note_sampled(rows)
    start = time.perf_counter()
    reader = Reader(base, bank, mixing)
    loop = _Loop(reader, keys, max_new_tokens, start, base.end_ids if end_ids is None else end_ids)
    loop.set_warping(temperature, top_p)
    loop.run(prompts, share_prefill)
    return loop.rollout()


class _Loop:
    """State of one batch while it is decoded; `at` maps the rows still in the batch to the rows asked for."""

    def __init__(
        self, reader: Reader, keys: NDArray[np.uint64], max_new_tokens: int, start: float, end_ids: Sequence[int]
    ) -> None:
        self.reader, self.start, self.max_new_tokens = reader, start, max_new_tokens
        self.device, self.pad_id = reader.base.device, reader.base.pad_id
        rows = len(keys)
        draws = uniforms(keys, 0, max_new_tokens)
        self.noise = torch.from_numpy(draws).to(self.device, torch.float32 if self.device.type == "mps" else None)
        self.token_ids = torch.full((rows, max_new_tokens), self.pad_id, device=self.device)
        self.log_probs = torch.zeros(rows, max_new_tokens, device=self.device)
        self.lengths = torch.full((rows,), max_new_tokens, device=self.device)
        self.ended = torch.zeros(rows, dtype=torch.bool, device=self.device)
        self.latency = np.zeros(rows)
        self.log_weights = torch.zeros(rows, device=self.device) if reader.mixing.weighed else None
        self.end_ids = torch.tensor(list(end_ids), dtype=torch.long, device=self.device)
        self.at = torch.arange(rows, device=self.device)
        self.temperature: Tensor | None = None
        self.top_p: Tensor | None = None

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

    def run(self, prompts: Sequence[Sequence[int]], share: bool) -> None:
        past, logits = self.reader.prefill(prompts, self.max_new_tokens, share)
        alive = torch.ones(len(self.at), dtype=torch.bool, device=self.device)
        for step in range(self.max_new_tokens):
            tokens, log_probs = draw(logits, self.noise[self.at, step], self.temperature, self.top_p)
            # rows that have ended stay until enough of them can leave together; what they draw does not count
            self.token_ids[self.at, step] = torch.where(alive, tokens, self.pad_id)
            self.log_probs[self.at, step] = torch.where(alive, log_probs, 0.0)
            if self.log_weights is not None:
                self.log_weights[self.at] += torch.where(alive, logits.logsumexp(dim=-1), 0.0)
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
                    tokens, alive = self._drop(past, tokens, alive)
            logits = self.reader.extend(past, tokens)

    def _drop(self, past: Past, tokens: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
        """Let finished rows leave; return tokens and liveness of those that stay."""
        index = past.mixing.keep(alive.cpu()).to(self.device)
        if len(index) == len(self.at):
            return tokens, alive
        self.reader.take(past, index)
        self.at = self.at[index]
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
            log_weights=self.log_weights,
        )


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
