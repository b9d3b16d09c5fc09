"""Sampled completions, as policies return them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paretune.core.errors import ShapeError
from paretune.core.user_calls import shown
from paretune.models.base import BaseModel
from paretune.models.decoding import Rollout


@dataclass(frozen=True, eq=False)
class Completions:
    """Sampled completions, B rows.

    Attributes:
        prompt_ids: Token ids of each row's formatted prompt.
        token_ids: Sampled ids `[B, T]`, right-padded.
        lengths: Tokens of each row `[B]`.
        texts: Decoded completions, special tokens left out.
        log_probs: `[B, T]` under the policy at temperature 1, in nats, 0 behind the end; of a row that was drawn out of
            several by weight (`models.resampled`) all NaN.
        reference_log_probs: The same under the base model; all NaN unless asked for.
        finish: `stop` or `length`, one per row.
        row_ids: (policy index, prompt index, sample) of each row.
        latency_seconds: From the start of the row's batch until its last token `[B]`.
        log_weights: Where the policy's mixing is weighed: see `decoding.Rollout`, `[B]`; else None.
        dropped_tokens: Tokens of completions that were sampled beside these and dropped.
    """

    prompt_ids: tuple[tuple[int, ...], ...]
    token_ids: Tensor
    lengths: Tensor
    texts: tuple[str, ...]
    log_probs: Tensor
    reference_log_probs: Tensor
    finish: tuple[str, ...]
    row_ids: tuple[tuple[int, int, int], ...]
    latency_seconds: NDArray[np.float64]
    log_weights: Tensor | None = None
    dropped_tokens: int = 0

    def take(self, rows: Sequence[int]) -> Completions:
        """Return some rows, in the order given; nothing counts as dropped."""
        index = torch.tensor(list(rows), dtype=torch.long)
        used = int(self.lengths[index].max()) if len(index) else 0
        return Completions(
            tuple(self.prompt_ids[row] for row in rows), self.token_ids[index, :used], self.lengths[index],
            tuple(self.texts[row] for row in rows), self.log_probs[index, :used],
            self.reference_log_probs[index, :used], tuple(self.finish[row] for row in rows),
            tuple(self.row_ids[row] for row in rows), self.latency_seconds[list(rows)],
            None if self.log_weights is None else self.log_weights[index],
        )  # fmt: skip

    def ids(self, row: int) -> tuple[int, ...]:
        """Return the token ids of one row without padding."""
        return tuple(self.token_ids[row, : int(self.lengths[row])].tolist())


def joined(parts: Sequence[Completions], pad_id: int) -> Completions:
    """Return the rows of all parts, in the order of prompt and sample."""
    if len(parts) == 1:
        return parts[0]
    width = max((part.token_ids.shape[1] for part in parts), default=0)

    def together(name: str, fill: float) -> Tensor:
        tables = [getattr(part, name) for part in parts]
        padded = [torch.nn.functional.pad(table, (0, width - table.shape[1]), value=fill) for table in tables]
        return torch.cat(padded)

    def listed(name: str) -> tuple[Any, ...]:
        return tuple(each for part in parts for each in getattr(part, name))

    whole = Completions(
        listed("prompt_ids"), together("token_ids", pad_id), torch.cat([part.lengths for part in parts]),
        listed("texts"), together("log_probs", 0.0), together("reference_log_probs", 0.0), listed("finish"),
        listed("row_ids"), np.concatenate([part.latency_seconds for part in parts]),
    )  # fmt: skip
    order = sorted(range(len(whole.texts)), key=lambda row: whole.row_ids[row][1:])
    return replace(whole.take(order), dropped_tokens=sum(part.dropped_tokens for part in parts))


def gathered(
    base: BaseModel,
    parts: Sequence[tuple[list[int], Rollout, Tensor | None]],
    prompt_ids: tuple[tuple[int, ...], ...],
    row_ids: tuple[tuple[int, int, int], ...],
) -> Completions:
    """Return what was sampled in batches as completions in the order of their rows.

    Args:
        base: The model that sampled.
        parts: Of each batch the numbers of its rows, what was sampled, and its log-probabilities under the base model
            where these were asked for.
        prompt_ids: Of all rows.
        row_ids: Of all rows.
    """
    size, steps = len(row_ids), max((rollout.token_ids.shape[1] for _, rollout, _ in parts), default=0)
    token_ids = torch.full((size, steps), base.pad_id)
    log_probs, reference = torch.zeros(size, steps), torch.full((size, steps), torch.nan)
    lengths, ended = torch.zeros(size, dtype=torch.long), torch.zeros(size, dtype=torch.bool)
    latency, log_weights = np.zeros(size), torch.zeros(size)
    weighed = False
    for rows, rollout, scored in parts:
        index, used = torch.tensor(rows), rollout.token_ids.shape[1]
        token_ids[index, :used] = rollout.token_ids.cpu()
        log_probs[index, :used] = rollout.log_probs.cpu()
        lengths[index], ended[index] = rollout.lengths.cpu(), rollout.ended.cpu()
        latency[rows] = rollout.latency_seconds
        if rollout.log_weights is not None:
            weighed, log_weights[index] = True, rollout.log_weights.cpu()
        if scored is not None:
            reference[index] = 0.0
            reference[index, :used] = scored.cpu()
    texts = tuple(base.decode(token_ids[row, : int(lengths[row])].tolist()) for row in range(size))
    return Completions(
        prompt_ids, token_ids, lengths, texts, log_probs,
        reference,
        tuple("stop" if end else "length" for end in ended.tolist()), row_ids, latency,
        log_weights if weighed else None,
    )  # fmt: skip


def per_prompt(name: str, value: float | Sequence[float], count: int) -> list[float]:
    """Return one number for each prompt, given as such or as one for all; numbers and arrays of numpy will do.

    Raises:
        ShapeError: If it is neither.

    Example:
        >>> per_prompt("seed", np.int64(3), 2), per_prompt("top_p", [0.5, 1.0], 2)
        ([3, 3], [0.5, 1.0])
    """
    given: Any = value.tolist() if isinstance(value, (np.ndarray, np.generic, Tensor)) else value
    if isinstance(given, Real):
        return [given] * count  # type: ignore[list-item]  # a float or an int, as the signature has it
    listed = isinstance(given, Sequence) and all(isinstance(each, Real) for each in given)
    if not listed or len(given) != count:
        got = len(given) if listed else shown(value)
        raise ShapeError(f"{name} must be one number or one per prompt ({count}), got {got}.")
    return list(given)


@dataclass(frozen=True)
class Asked:
    """What a policy is asked to sample; lists have an entry for each prompt.

    Attributes:
        prompts: Raw prompts.
        owners: Which of the M preferences answers each.
        seeds: Of each prompt's noise.
        temperatures: Of each prompt.
        masses: Top-p of each prompt.
        samples: Completions per prompt.
        limit: Longest completion.
        reference: Whether log-probabilities under the base model are wanted too.
        end_ids: Token ids that end a completion; None: the base model's.

    Raises:
        ShapeError: If there are to be no samples, or none of a token.
    """

    prompts: Sequence[str]
    owners: Sequence[int]
    seeds: Sequence[int]
    temperatures: Sequence[float]
    masses: Sequence[float]
    samples: int
    limit: int
    reference: bool
    end_ids: Sequence[int] | None

    def __post_init__(self) -> None:
        for name, number in (("samples", self.samples), ("max_new_tokens", self.limit)):
            if number < 1:
                raise ShapeError(f"{name} must be at least 1, got {number}.")

    @property
    def row_ids(self) -> tuple[tuple[int, int, int], ...]:
        """Of each row: who answers, which prompt, which sample; the samples of a prompt next to each other."""
        return tuple((owner, row, number) for row, owner in enumerate(self.owners) for number in range(self.samples))

    def of(self, rows: Sequence[int]) -> Asked:
        """Return what is asked for some of the prompts."""
        return replace(
            self, prompts=[self.prompts[row] for row in rows], owners=[self.owners[row] for row in rows],
            seeds=[self.seeds[row] for row in rows], temperatures=[self.temperatures[row] for row in rows],
            masses=[self.masses[row] for row in rows],
        )  # fmt: skip
