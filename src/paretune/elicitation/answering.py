"""How people answer "A or B?": the more one of them is worth to them, the surer they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, get_args

import numpy as np

from paretune.core.preferences import FloatArray

Reply = Literal["a", "b", "="]
REPLIES: Final[tuple[Reply, ...]] = get_args(Reply)  # A, B, or no preference between them
SLIPS: Final = 0.02  # share of replies that say nothing, such as a wrong key; without it one of them could rule out w
VOTES: Final[Mapping[Reply, tuple[tuple[float, float], ...]]] = {  # for A (1) or B (-1), and how much each counts
    "a": ((1.0, 1.0),), "b": ((-1.0, 1.0),), "=": ((1.0, 0.5), (-1.0, 0.5)),
}  # fmt: skip


def chance_of_a(gaps: FloatArray, noise: FloatArray | float) -> FloatArray:
    """Return how likely A is preferred to B by somebody who prefers one and finds A worth so much more.

    Args:
        gaps: Utility of A less that of B, `[...]`.
        noise: How well gaps are noticed, in units of utility: with a gap of one `noise` the better option is preferred
            in 73 of 100 cases, with three in 95. It broadcasts with the gaps.

    Source:
        Bradley and Terry 1952; Luce 1959.

    Departures:
        A share `SLIPS` of replies falls on both alike.

    Example:
        >>> chance_of_a(np.array([-0.3, 0.0, 0.1, 0.3]), 0.1).round(2).tolist()
        [0.06, 0.5, 0.73, 0.94]
    """
    return np.asarray((1 - SLIPS) * 0.5 * (1 + np.tanh(gaps / (2 * noise))) + SLIPS / 2)


def votes(differences: FloatArray, replies: Sequence[Reply]) -> tuple[FloatArray, FloatArray]:
    """Return replies as votes, each for what a difference of scores is worth: `[V, K]`, and how much it counts, `[V]`.

    No preference is half a vote for A and half for B. So it says that the gap is small; that somebody never says it is
    a habit, and no evidence.

    Args:
        differences: Scores of A less those of B, `[n, K]`.
        replies: n of them.

    Source:
        Davidson 1970, whose tie has the geometric mean of both chances where ties are rare.

    Example:
        >>> [each.tolist() for each in votes(np.array([[1.0, -2.0], [3.0, 1.0]]), ["b", "="])]
        [[[-1.0, 2.0], [3.0, 1.0], [-3.0, -1.0]], [1.0, 0.5, 0.5]]
    """
    counted = [
        (sign * difference, share)
        for difference, reply in zip(differences, replies, strict=True)
        for sign, share in VOTES[reply]
    ]
    return np.asarray([row for row, _ in counted]).reshape(-1, differences.shape[1]), np.asarray(
        [n for _, n in counted]
    )
