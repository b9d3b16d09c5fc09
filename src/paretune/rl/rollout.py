"""Sampling for learning: the seam between an engine that samples and the learner that updates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from paretune.core.errors import ShapeError
from paretune.core.preferences import FloatArray
from paretune.core.seeds import generator, prompt_key, row_keys
from paretune.core.task import Row
from paretune.models.bank import ExpertBank
from paretune.models.decoding import sample
from paretune.models.mixing import Mixing

GREEDY_TOP_P = 1e-9  # a top-p that the most likely token alone exceeds: nothing else is left to draw


@dataclass(frozen=True, eq=False)
class Batch:
    """Completions of an update, the members' blocks one after the other.

    Attributes:
        rows: The prompt's columns of each completion.
        prompt_ids: Token ids of each completion's prompt.
        token_ids: `[B, T]`, right-padded.
        lengths: `[B]`.
        log_probs: Of each token under the expert that sampled it, `[B, T]`.
        texts: Decoded completions.
        plain_ids: Token ids of the prompts alone, for the base model, where a preference stands in front of them.
    """

    rows: tuple[Row, ...]
    prompt_ids: tuple[tuple[int, ...], ...]
    token_ids: Tensor
    lengths: Tensor
    log_probs: Tensor
    texts: tuple[str, ...]
    plain_ids: tuple[tuple[int, ...], ...] | None = None


class Sampler(Protocol):
    """Anything that can sample for a trainee; another engine can fill this in."""

    def __call__(
        self,
        mixing: Mixing,
        rows: Sequence[Row],
        prompt_ids: Sequence[tuple[int, ...]],
        keys: np.typing.NDArray[np.uint64],
        max_new_tokens: int,
        greedy: bool = False,
    ) -> Batch:
        """Sample one completion for each row of the mixing, or take the most likely token each time."""
        ...  # fmt: skip


class BankSampler:
    """Samples with the bank's own decoding loop."""

    def __init__(self, bank: ExpertBank) -> None:
        self.bank = bank

    def __call__(
        self,
        mixing: Mixing,
        rows: Sequence[Row],
        prompt_ids: Sequence[tuple[int, ...]],
        keys: np.typing.NDArray[np.uint64],
        max_new_tokens: int,
        greedy: bool = False,
    ) -> Batch:
        """Sample one completion for each row, or take the most likely token each time."""
        base = self.bank.base
        top_p = torch.full((len(prompt_ids),), GREEDY_TOP_P) if greedy else None
        rollout = sample(base, self.bank, prompt_ids, mixing, keys, max_new_tokens, top_p=top_p)
        lengths = rollout.lengths.tolist()
        texts = tuple(base.decode(ids[:size]) for ids, size in zip(rollout.token_ids.tolist(), lengths, strict=True))
        return Batch(tuple(rows), tuple(prompt_ids), rollout.token_ids, rollout.lengths, rollout.log_probs, texts)


@dataclass(frozen=True)
class Prompts:
    """Prompts of one split.

    Attributes:
        rows: Their columns.
        prompt_ids: Token ids of each formatted prompt.
        told: From a place and a preference `[K]` to the token ids of that prompt with the preference in front of it;
            None where policies are not told.
    """

    rows: Sequence[Row]
    prompt_ids: Sequence[tuple[int, ...]]
    told: Callable[[int, FloatArray], tuple[int, ...]] | None = None


class PromptStream:
    """The order in which a training seed visits prompts: shuffled anew each epoch, a function of the position alone."""

    def __init__(self, prompts: Prompts, seed: int, among: Sequence[int] | None = None) -> None:
        """Start a stream.

        Args:
            prompts: Of the split.
            seed: Of the order and of the noise.
            among: Numbers of those that are visited, none twice; all of them when left out.

        Raises:
            ShapeError: If there is no prompt of one of these numbers, one is named twice, or none is visited.
        """
        self.rows, self.prompt_ids, self.seed = prompts.rows, prompts.prompt_ids, seed
        self.digests = [prompt_key(ids) for ids in prompts.prompt_ids]
        self.visited = list(range(len(prompts.rows)) if among is None else among)
        if among is not None:
            times = Counter(self.visited)
            wrong = [number for number, count in times.items() if count > 1 or not 0 <= number < len(prompts.rows)]
            if wrong or not times:
                raise ShapeError(
                    f"among must name some of the {len(prompts.rows)} prompts by their numbers, none twice, got "
                    f"{wrong[:8] if wrong else 'none'}. Leave it out for all of them."
                )
        self._epoch, self._order = -1, np.arange(0)

    def indices(self, first: int, count: int) -> list[int]:
        """Return which prompts are visited at positions `first .. first + count - 1`."""
        found = []
        for position in range(first, first + count):
            epoch, place = divmod(position, len(self.visited))
            if epoch != self._epoch:
                self._epoch, self._order = epoch, generator(self.seed, "prompts", epoch).permutation(len(self.visited))
            found.append(self.visited[int(self._order[place])])
        return found

    def keys(self, indices: Sequence[int], step: int, group_size: int) -> np.typing.NDArray[np.uint64]:
        """Return the noise keys of G samples of each prompt at a training step.

        A prompt that comes up again in one step, as at the end of an epoch, goes on with the next samples.
        """
        digests = [self.digests[index] for index in indices]
        again = [digests[:place].count(digest) for place, digest in enumerate(digests)]
        samples = [earlier * group_size + number for earlier in again for number in range(group_size)]
        return row_keys(self.seed, step, [digest for digest in digests for _ in range(group_size)], samples)
