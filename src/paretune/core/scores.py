"""The shape in which completions are scored: a matrix of rewards and, for each entry, how it came about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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
