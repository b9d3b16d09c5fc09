"""What a policy is worth to a user: utilities of measured scores, by name."""

from __future__ import annotations

import numpy as np

from paretune.core.checks import check_choice
from paretune.core.errors import ShapeError
from paretune.core.preferences import FloatArray

UTILITIES = ("linear", "chebyshev", "thresholds")
AUGMENTED = 0.05  # share of the linear utility, so that of two policies with one weakest objective the better one wins


def utility_table(
    name: str,
    scores: FloatArray,
    preferences: FloatArray,
    points: FloatArray | None = None,
    widths: FloatArray | None = None,
) -> FloatArray:
    """Return what each of some policies is worth for each preference, `[M, N]`; higher is better.

    `linear` is `w . s`. `chebyshev` is `-max_k w_k (ideal_k - s_k) / d_k + .05 sum_k w_k s_k / d_k` over the objectives
    with weight, `d_k` being widths of ranges: what is lacked most decides. `thresholds` lets policies that reach all
    thresholds come first, by `w . s`; the others follow by the sum of what they lack, in widths too, whatever the
    preference.

    These order policies that are measured. What policies are *trained* and judged for has slopes:
    `pareto.scalarisation`. The two Chebyshev utilities differ by a constant, at an augmentation of .05; the two of
    thresholds are different utilities.

    Args:
        name: One of `UTILITIES`.
        scores: `[N, K]`.
        preferences: `[M, K]`.
        points: `[K]`: the ideal of `chebyshev`, the thresholds of `thresholds`; nothing for `linear`.
        widths: Of the objectives' ranges, `[K]`; 1 each unless given. `linear` does not read them.

    Raises:
        UnknownNameError: If there is no such utility.
        ShapeError: If the points or the widths are not one an objective.

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
    width = np.ones(scores.shape[1]) if widths is None else np.asarray(widths, np.float64)
    if width.shape != (scores.shape[1],):
        raise ShapeError(
            f"widths of utility '{name}' must be one per objective ({scores.shape[1]}), got {list(width.shape)}. Give "
            "each objective that of its range."
        )
    if name == "chebyshev":
        wanted = preferences[:, None, :]
        lacking = np.where(wanted > 0, wanted * ((points - scores) / width)[None], -np.inf).max(axis=2)  # [M, N]
        return np.asarray(AUGMENTED * (preferences @ (scores / width).T) - lacking)
    short = (np.maximum(points - scores, 0.0) / width).sum(axis=1)  # [N]
    low = float(scores.min()) - 1.0  # below every linear utility
    return np.where(short[None] > 0, low - short[None], linear)
