"""Folds of measured prompts: what lets a choice be made on some prompts and valued on others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from paretune.core.preferences import FloatArray

FOLDS = 8  # 35 ways to halve them; two prompts each where there are 16


def fold_numbers(prompts: Sequence[int] | NDArray[np.int64], folds: int = FOLDS) -> NDArray[np.int64]:
    """Return the fold of each completion, from the number of its prompt in the split: folds share no prompt.

    Args:
        prompts: Number of the prompt of each.
        folds: How many there are.

    Example:
        >>> fold_numbers([0, 1, 9, 16]).tolist()
        [0, 1, 1, 0]
    """
    return np.asarray(prompts, dtype=np.int64) % folds


def fold_sums(values: FloatArray, folds: NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    """Return how many values of each column are known and what they add up to in each fold, twice `[FOLDS, C]`.

    Args:
        values: Of completions, `[N, C]`; NaN where there is none.
        folds: Of completions, `[N]`.
    """
    member = (np.arange(FOLDS)[:, None] == folds[None]).astype(np.float64)  # [F, N]
    present = ~np.isnan(values)
    return member @ present, member @ np.where(present, values, 0.0)


def fold_means(counts: FloatArray, sums: FloatArray) -> FloatArray:
    """Return means by fold; NaN where nothing is known."""
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
