"""Differences between two methods, seed by seed: what both owe to the seed cancels."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from paretune.core.errors import ShapeError
from paretune.statistics.intervals import Interval, finite_seeds, finite_values, mean_interval

ROUNDING = 1e-12  # relative; .1 + .2 and .3 are one score, and a constant difference in the last bit is none


def paired_difference(
    first: ArrayLike, second: ArrayLike, confidence: float = 0.95, generator: np.random.Generator | None = None
) -> Interval:
    """Return the mean of `first - second` over seeds with its interval, by the rule of `mean_interval`.

    Args:
        first: One value per seed, `[S]`, or per seed and prompt, `[S, P]`.
        second: The other method's, for the same seeds and prompts in the same order.
        confidence: Coverage, between 0 and 1.
        generator: Source of the bootstrap's draws; None always gives the same ones.

    Raises:
        ShapeError: If the two have different shapes or are empty.
        NonFiniteError: If a value is NaN or infinite.
        ConfigError: If `confidence` is not between 0 and 1.

    Example:
        >>> paired_difference([0.5, 0.75], [0.25, 0.5])
        Interval(mean=0.25, low=0.25, high=0.25, count=2, reason='', method='Student-t over 2 values')
    """
    return mean_interval(_differences(first, second), confidence, generator)


def paired_p_value(first: ArrayLike, second: ArrayLike) -> float | None:
    """Return the two-sided p-value of the paired t-test, or None with one seed.

    It is below `1 - confidence` exactly where the Student-t interval of `paired_difference` leaves 0 out.

    Args:
        first: One value per seed, `[S]`.
        second: The other method's, for the same seeds in the same order, `[S]`.

    Raises:
        ShapeError: If the two have different lengths or are empty.
        NonFiniteError: If a value is NaN or infinite.
    """
    differences = _differences(finite_values(first, "first"), finite_values(second, "second"))
    count = len(differences)
    if count == 1:
        return None
    mean = float(differences.mean())
    error = float(differences.std(ddof=1) / np.sqrt(count))
    if error == 0:  # the same difference for every seed
        return 1.0 if mean == 0 else 0.0
    return float(2 * special.stdtr(count - 1, -abs(mean) / error))


def _differences(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    left, right = finite_seeds(first, "first"), finite_seeds(second, "second")
    if left.shape != right.shape:
        raise ShapeError(
            f"first and second must have one value for each of the same seeds, got {_count(left)} and {_count(right)}. "
            "Keep the seeds and prompts both have."
        )
    differences = left - right
    same = np.abs(differences) <= ROUNDING * np.maximum(np.abs(left), np.abs(right))
    return np.asarray(np.where(same, 0.0, differences))


def _count(values: NDArray[np.float64]) -> str:
    return " x ".join(str(size) for size in values.shape)
