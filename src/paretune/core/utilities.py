"""What a policy is worth to a user: utilities of measured scores, by name."""

from __future__ import annotations

import numpy as np

from paretune.core.checks import check_choice
from paretune.core.errors import ShapeError
from paretune.core.preferences import FloatArray

UTILITIES = ("linear", "chebyshev", "thresholds")
AUGMENTED = 0.05  # share of the linear utility, so that of two policies with one weakest objective the better one wins


def utility_table(
    name: str, scores: FloatArray, preferences: FloatArray, points: FloatArray | None = None
) -> FloatArray:
    """Return what each of some policies is worth for each preference, `[M, N]`; higher is better.

    `linear` is `w . s`. `chebyshev` is `-max_k w_k (ideal_k - s_k) + .05 w . s` over the objectives with weight: what
    is lacked most decides. `thresholds` lets policies that reach all thresholds come first, by `w . s`; the others
    follow by the sum of what they lack, whatever the preference.

    These order policies that are measured, in units of the scores. What policies are *trained* and judged for has
    slopes, and counts in shares of each range: `pareto.scalarisation`. With ranges of width 1 the two Chebyshev
    utilities differ by a constant, at an augmentation of .05; the two of thresholds are different utilities.

    Args:
        name: One of `UTILITIES`.
        scores: `[N, K]`.
        preferences: `[M, K]`.
        points: `[K]`: the ideal of `chebyshev`, the thresholds of `thresholds`; nothing for `linear`.

    Raises:
        UnknownNameError: If there is no such utility.
        ShapeError: If the points are not one an objective.

    Source:
        Steuer and Choo 1983 for the augmented Chebyshev function; lexicographic thresholds as in Gabor et al. 1998.

    Example:
        >>> both = np.asarray([[1.0, 0.0], [0.5, 0.5]])
        >>> utility_table("linear", both, np.asarray([[0.5, 0.5]])).tolist()
        [[0.5, 0.5]]
        >>> int(utility_table("thresholds", both, np.asarray([[1.0, 0.0]]), np.asarray([0.0, 0.4])).argmax())
        1
    """
    check_choice("utility", name, UTILITIES)
    linear = np.asarray(preferences @ scores.T)
    if name == "linear":
        return linear
    if points is None or np.shape(points) != (scores.shape[1],):
        raise ShapeError(
            f"points of utility '{name}' must be one per objective ({scores.shape[1]}), got "
            f"{None if points is None else list(np.shape(points))}. Give each objective one."
        )
    if name == "chebyshev":
        wanted = preferences[:, None, :]
        lacking = np.where(wanted > 0, wanted * (points - scores)[None], -np.inf).max(axis=2)  # [M, N]
        return np.asarray(AUGMENTED * linear - lacking)
    short = np.maximum(points - scores, 0.0).sum(axis=1)  # [N]
    low = float(scores.min()) - 1.0  # below every linear utility
    return np.where(short[None] > 0, low - short[None], linear)
