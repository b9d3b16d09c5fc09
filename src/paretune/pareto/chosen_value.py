"""What a chosen policy is worth: the choice made on some prompts, its value taken from the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from paretune.core.errors import ShapeError
from paretune.core.preferences import FloatArray, check_preferences
from paretune.core.utilities import utility_table
from paretune.pareto.cross_fitting import check_prompt_scores, half_means, prompt_halves


@dataclass(frozen=True, eq=False)
class ChosenValues:
    """What the choice for each preference is worth, with and without the luck of whoever was chosen.

    Attributes:
        naive: Chosen and valued on all that was measured, `[M]`.
        cross_fitted: Chosen on one half of the folds, valued on the other, and the other way round, `[M]`; None with
            one fold.
    """

    naive: FloatArray
    cross_fitted: FloatArray | None


def chosen_values(
    fold_scores: ArrayLike,
    preferences: ArrayLike,
    utility: str = "linear",
    points: FloatArray | None = None,
    widths: FloatArray | None = None,
    counts: FloatArray | None = None,
    means: FloatArray | None = None,
) -> ChosenValues:
    """Measure what the policies chosen for some preferences are worth.

    The highest of several measured means is lucky. The cross-fitted value is not: what chooses has no part in the
    value. It leans low where half of the folds choose a worse policy than all of them do.

    Args:
        fold_scores: Mean scores of each policy on each fold of the prompts, `[N, F, K]`; folds share no prompt.
        preferences: `[M, K]`.
        utility: What chooses, one of `core.utilities.UTILITIES`. It also is the value; under `thresholds` that is
            `w . s`.
        points: What the utility needs, `[K]`.
        widths: Of the objectives' ranges, which it counts in, `[K]`; 1 each unless given.
        counts: Completions behind each mean, which it counts for, `[N, F, K]`, all positive; 1 each unless given.
        means: Mean scores of each policy over all its completions, `[N, K]`, for the naive value, where some are in no
            fold; else those over the folds.

    Raises:
        ShapeError: If the shapes disagree, or there is no policy.
        NonFiniteError: If a score is NaN or infinite.
        PreferenceError: If a preference is no point on the simplex.

    Example:
        >>> found = chosen_values([[[1.0], [0.0]], [[0.0], [1.0]]], [[1.0]])  # each is best on the fold it likes
        >>> found.naive.tolist(), found.cross_fitted.tolist()
        ([0.5], [0.0])
    """
    scores = check_prompt_scores(fold_scores)
    counted = np.ones_like(scores) if counts is None else np.asarray(counts, dtype=np.float64)
    if counted.shape != scores.shape:
        raise ShapeError(
            f"counts must have one entry for each score {list(scores.shape)}, got shape {list(counted.shape)}. Count "
            "the completions of each."
        )
    wanted = check_preferences(preferences, scores.shape[2])
    over_all = (counted * scores).sum(axis=1) / counted.sum(axis=1) if means is None else means
    naive = _valued(over_all, over_all, wanted, utility, points, widths)
    if scores.shape[1] == 1:
        return ChosenValues(naive, None)
    halves_of = prompt_halves(scores.shape[1])
    sums, sizes = half_means(counted * scores, halves_of), half_means(counted, halves_of)
    first, second = (each / size for each, size in zip(sums, sizes, strict=True))  # [R, N, K]
    both = [
        _valued(one, other, wanted, utility, points, widths)
        for halves in zip(first, second, strict=True)
        for one, other in (halves, halves[::-1])
    ]
    return ChosenValues(naive, np.mean(both, axis=0))


def _valued(
    choosing: FloatArray,
    valuing: FloatArray,
    preferences: FloatArray,
    utility: str,
    points: FloatArray | None,
    widths: FloatArray | None,
) -> FloatArray:
    """Return what those that one table of scores `[N, K]` chooses are worth by another one, `[M]`."""
    chosen = utility_table(utility, choosing, preferences, points, widths).round(12).argmax(axis=1)
    value = utility_table("linear" if utility == "thresholds" else utility, valuing, preferences, points, widths)
    return np.asarray(value[np.arange(len(preferences)), chosen])
