"""Whether a preference steers: does more weight on an objective raise its score?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paretune.core.errors import ShapeError
from paretune.core.preferences import SAME_PREFERENCE, check_preferences
from paretune.pareto.front import check_some_scores

SAME_SCORE = 1e-9  # one policy, scored in two batches, may differ in its last bits


def controllability(preferences: ArrayLike, scores: ArrayLike) -> NDArray[np.float64]:
    """Return how surely more weight on an objective raises its score, `[K]`, from -1 to 1.

    Of all pairs of preferences that give the objective different weights: the share in which the one with more weight
    has the higher score, less the share in which it has the lower. This is the rank correlation of Kendall without
    pairs of equal weight, which ask for nothing; 0 where the score never changes.

    Args:
        preferences: `[M, K]`.
        scores: Of the policy assigned to each of them, `[M, K]`.

    Returns:
        One for each objective; NaN where all preferences give it the same weight.

    Raises:
        ShapeError: If there is no preference, or the shapes disagree.
        NonFiniteError: If a score is NaN or infinite.
        PreferenceError: If a preference has no K weights, none negative and one above 0.

    Source:
        Somers 1962, A new asymmetric measure of association for ordinal variables.

    Example:
        >>> controllability([[1, 0], [0.5, 0.5], [0, 1]], [[0.9, 0.5], [0.8, 0.7], [0.85, 0.7]]).round(2).tolist()
        [0.33, 0.67]
    """
    reached = check_some_scores(scores)
    wanted = check_preferences(preferences, reached.shape[1])
    if len(wanted) != len(reached):
        raise ShapeError(
            f"preferences and scores must have as many rows, got {len(wanted)} and {len(reached)}. Give each "
            "preference the scores of the policy that answers it."
        )
    more, higher = _order(wanted, SAME_PREFERENCE), _order(reached, SAME_SCORE)  # [M, M, K]
    asked = np.abs(more).sum(axis=(0, 1))
    followed = (more * higher).sum(axis=(0, 1))
    return np.asarray(np.divide(followed, asked, out=np.full(asked.shape, np.nan), where=asked > 0))


def _order(values: NDArray[np.float64], same: float) -> NDArray[np.float64]:
    differences = values[:, None] - values[None]
    return np.asarray(np.where(np.abs(differences) <= same, 0.0, np.sign(differences)))
