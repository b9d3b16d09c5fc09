"""Where a gate uses which expert: its weights by block, by position in the completion, and by prompt."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paretune.core.errors import ShapeError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GateUse:
    """Mean expert weights that a gate chose, over tokens of completions.

    Attributes:
        mean: `[E]`.
        by_block: `[L, E]`.
        positions: First and last token of each bin of positions, from 1 on.
        by_position: `[Q, E]`.
        by_prompt: `[P, E]`.
        spread: Standard deviation of `by_prompt` over prompts, `[E]`; NaN with one prompt.
        entropy: How evenly a token's weights are spread over experts, 0 to 1; NaN with one expert.
    """

    mean: FloatArray
    by_block: FloatArray
    positions: tuple[tuple[int, int], ...]
    by_position: FloatArray
    by_prompt: FloatArray
    spread: FloatArray
    entropy: float


def gate_use(weights: FloatArray, prompts: NDArray[np.int64]) -> GateUse:
    """Average a gate's weights.

    The entropy is that of `|g_e| / sum |g|`, divided by `log E` and averaged over tokens and blocks: 0 where a token
    uses one expert, 1 where it uses all alike.

    Args:
        weights: Of N completions of up to T tokens in L blocks, `[N, T, L, E]`; NaN behind the end of a completion.
        prompts: Which of P prompts each completion answers, `[N]`.

    Raises:
        ShapeError: If there are no four dimensions, no token, or not one prompt for each completion.
    """
    if weights.ndim != 4 or prompts.shape != weights.shape[:1]:
        raise ShapeError(
            f"weights must be [N, T, L, E] with one prompt for each of N, got {list(weights.shape)} and "
            f"{list(prompts.shape)}. Name the prompt of every completion."
        )
    inside = np.isfinite(weights).all(axis=(2, 3))  # [N, T]
    if not inside.any():
        raise ShapeError("weights must be of at least one token, got none. Sample completions that are not empty.")
    tokens = weights[inside]  # [tokens, L, E]
    own = np.repeat(prompts[:, None], weights.shape[1], axis=1)[inside]
    place = np.repeat(np.arange(weights.shape[1])[None], len(weights), axis=0)[inside]
    by_prompt = np.stack([tokens[own == each].mean(axis=(0, 1)) for each in np.unique(own)])
    bins = position_bins(int(place.max()) + 1)
    by_position = [tokens[(place >= low - 1) & (place < high)].mean(axis=(0, 1)) for low, high in bins]
    several = len(by_prompt) > 1
    return GateUse(
        mean=tokens.mean(axis=(0, 1)),
        by_block=tokens.mean(axis=0),
        positions=bins,
        by_position=np.stack(by_position),
        by_prompt=by_prompt,
        spread=by_prompt.std(axis=0, ddof=1) if several else np.full(weights.shape[3], np.nan),
        entropy=_entropy(tokens),
    )


def position_bins(tokens: int) -> tuple[tuple[int, int], ...]:
    """Return bins of positions that double in size, 1, 2, 3 to 4, 5 to 8, ..., as many as the longest completion needs.

    Example:
        >>> position_bins(6)
        ((1, 1), (2, 2), (3, 4), (5, 8))
    """
    lows = [2**power + 1 for power in range((tokens - 1).bit_length())]
    return ((1, 1), *((low, 2 * (low - 1)) for low in lows))


def _entropy(weights: FloatArray) -> float:
    """Return the mean entropy of weights `[..., E]` as a share of the largest possible."""
    experts, sums = weights.shape[-1], np.abs(weights).sum(axis=-1, keepdims=True)
    used = sums[..., 0] > 0
    if experts < 2 or not used.any():
        return math.nan
    shares = np.abs(weights[used]) / sums[used]
    terms = np.where(shares > 0, -shares * np.log(np.where(shares > 0, shares, 1.0)), 0.0)
    return float(terms.sum(axis=-1).mean() / math.log(experts))
