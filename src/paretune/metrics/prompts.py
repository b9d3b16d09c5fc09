"""Scores prompt by prompt, of evaluations that answered the same prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from paretune.records.evaluation import EvaluationRecord

FloatArray = NDArray[np.float64]


def prompt_scores(records: Sequence[EvaluationRecord]) -> tuple[FloatArray, int] | str:
    """Return scores by prompt `[N, P, K]` of N evaluations of the same prompts, and how many prompts were left out.

    They are exact where that is known of all of them, in the order of the records, else means over samples, in that of
    sorted ids. A prompt on which any of them lacks a reward is left out of all.
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


def wanted_of_prompts(records: Sequence[EvaluationRecord]) -> FloatArray | None:
    """Return what users want of each prompt, `[N, P, K]`, or None where no evaluation says so.

    None means that all users want of every prompt what their preferences say. The same holds for an evaluation that
    does not say so beside others that do.

    Args:
        records: As `prompt_scores` takes them; prompts come in its order, where that leaves none out.
    """
    if all(record.prompt_preferences is None for record in records):
        return None
    named = list(dict.fromkeys(records[0].prompt_ids))
    wanted = np.stack(
        [
            np.tile(record.preference, (len(named), 1)) if record.prompt_preferences is None
            else record.prompt_preferences
            for record in records
        ]
    )  # fmt: skip
    if all(record.exact_rewards is not None for record in records):
        return wanted
    return wanted[:, np.argsort(named)]  # means over samples are in the order of sorted ids
