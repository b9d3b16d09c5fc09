"""Scores prompt by prompt, of evaluations that answered the same prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from paretune.records.evaluation import EvaluationRecord

FloatArray = NDArray[np.float64]


def prompt_scores(records: Sequence[EvaluationRecord]) -> tuple[FloatArray, int] | str:
    """Return scores by prompt `[N, P, K]` of N evaluations of the same prompts, and how many prompts were left out.

    They are exact where that is known of all of them, else means over samples. A prompt on which any of them lacks a
    reward is left out of all.
    """
    first = records[0]
    if any(record.prompt_ids != first.prompt_ids for record in records):
        return "has evaluations on different prompts"
    exact = [record.exact_rewards for record in records if record.exact_rewards is not None]
    if len(exact) == len(records):
        return np.stack(exact), 0
    places, counts = np.unique(first.prompt_ids, return_inverse=True, return_counts=True)[1:]
    if len(set(counts.tolist())) > 1:
        return "has prompts with unequal numbers of completions"
    total = len(counts)
    sums = np.zeros((len(records), total, len(first.objectives)))
    for index, record in enumerate(records):
        np.add.at(sums[index], places, record.rewards[:, : len(first.objectives)])  # NaN stays NaN
    scores = sums / counts[:, None]
    whole = np.isfinite(scores).all(axis=(0, 2))
    if not whole.any():
        return "has no prompt on which every candidate has all rewards"
    return scores[:, whole], int((~whole).sum())
