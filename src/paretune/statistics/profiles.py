"""Performance profiles: what share of the runs reaches how much."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from paretune.core.errors import NonFiniteError, ShapeError
from paretune.statistics.intervals import check_confidence

FloatArray = NDArray[np.float64]


class Profile(NamedTuple):
    """Share of runs above each of H thresholds.

    Attributes:
        thresholds: `[H]`.
        share: Share of runs that score above the threshold, `[H]`.
        low: Lower ends of the intervals, `[H]`.
        high: Upper ends, `[H]`.
        runs: Number of runs.
        method: Which rule gave the ends.
    """

    thresholds: FloatArray
    share: FloatArray
    low: FloatArray
    high: FloatArray
    runs: int
    method: str


def performance_profile(scores: ArrayLike, thresholds: ArrayLike, confidence: float = 0.95) -> Profile:
    """Return the share of runs that score above each threshold, with pointwise intervals.

    Pointwise: each interval keeps its word by itself, the band as a whole does not. Where one method's profile lies
    above another's everywhere, every quantile of its runs is better.

    Args:
        scores: One per run, of any shape, such as runs by tasks; higher is better.
        thresholds: `[H]`.
        confidence: Coverage of each interval, between 0 and 1.

    Raises:
        ShapeError: If there is no run, or the thresholds are no list.
        NonFiniteError: If a score or threshold is NaN or infinite.
        ConfigError: If `confidence` is not between 0 and 1.

    Source:
        Agarwal et al. 2021, Deep reinforcement learning at the edge of the statistical precipice; intervals of Wilson
        1927.

    Departures:
        Agarwal et al. draw runs anew, which gives no width where all runs or none are above. Over tasks that differ the
        Wilson interval is a little too wide, since it knows of no tasks.

    Example:
        >>> performance_profile([0.25, 0.5, 0.75, 1.0], [0.0, 0.5, 1.0]).share.tolist()
        [1.0, 0.5, 0.0]
    """
    sample, taus = np.ravel(np.asarray(scores, dtype=np.float64)), np.asarray(thresholds, dtype=np.float64)
    check_confidence(confidence)
    if len(sample) == 0 or taus.ndim != 1:
        raise ShapeError(
            f"scores must have at least one run and thresholds must be a list, got {len(sample)} runs and thresholds "
            f"of shape {list(taus.shape)}. Leave out methods without a run, and write one threshold as [0.5]."
        )
    if not np.isfinite(sample).all() or not np.isfinite(taus).all():
        raise NonFiniteError(
            "scores and thresholds must be finite, got a NaN or infinity. Leave out runs without a score."
        )
    count = len(sample)
    share = (sample > taus[:, None]).mean(axis=1)
    squared = float(special.ndtri((1 + confidence) / 2)) ** 2 / count  # z^2 / n
    centre = (share + squared / 2) / (1 + squared)
    half = np.sqrt(squared * share * (1 - share) + squared**2 / 4) / (1 + squared)
    low = np.where(share == 0, 0.0, centre - half)  # exactly 0 and 1 there, but for rounding
    high = np.where(share == 1, 1.0, centre + half)
    return Profile(taus, share, low, high, count, f"Wilson interval over {count} runs, pointwise")
