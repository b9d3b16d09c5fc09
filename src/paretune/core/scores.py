"""The shape in which completions are scored: a matrix of rewards and, for each entry, how it came about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paretune.core.errors import RewardError
from paretune.core.task import Row


class Scores(NamedTuple):
    """Rewards of B completions on K objectives.

    Attributes:
        rewards: `[B, K]`; NaN where a score is missing or could not be made, never 0 in its place.
        statuses: `[B, K]` strings: `ok`, `missing` (the function said None), `wrong_length`, `not_finite`,
            `out_of_range`, `raised`.
        faults: For each objective, what its reward did wrong in this batch, for people; empty where nothing. Empty as a
            whole where nobody can say.
    """

    rewards: NDArray[np.float64]
    statuses: NDArray[np.str_]
    faults: tuple[str, ...] = ()


KEPT_CONTRACT = ("ok", "missing")  # statuses of a reward that kept its contract
Score = Callable[[Sequence[Row], Sequence[str]], Scores]  # rows of the prompts, completions -> scores


def check_scored(scored: Sequence[int], missing: Sequence[int], faults: Sequence[str]) -> None:
    """Refuse results in which an objective was never scored: nobody would know that it was not there.

    Args:
        scored: Rewards that were made, by objective.
        missing: Rewards that were not.
        faults: What each reward did wrong, for people; with its name.

    Raises:
        RewardError: If an objective has missing rewards and no others.
    """
    for made, lost, fault in zip(scored, missing, faults, strict=True):
        if lost and not made:
            raise RewardError(
                f"reward of every objective must give at least one score, got none for {lost:,} completions: {fault}. "
                "Correct the reward, then run the same command again; nothing finished is lost."
            )


def check_statuses(statuses: Sequence[NDArray[np.str_]], faults: Sequence[str]) -> None:
    """Do `check_scored` for several matrices of statuses `[N, K]`."""
    fine = np.concatenate(statuses) == "ok"
    check_scored(fine.sum(axis=0).tolist(), (~fine).sum(axis=0).tolist(), faults)


def missing_share(objective: str, missing: int, total: int, where: str) -> str:
    """Say how many rewards of an objective are missing.

    Example:
        >>> missing_share("brevity", 1, 3, "training")
        '1 of 3 rewards of brevity are missing in training (33.3 %).'
    """
    return f"{missing:,} of {total:,} rewards of {objective} are missing in {where} ({100 * missing / total:.3g} %)."
