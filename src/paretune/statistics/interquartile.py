"""The interquartile mean: what the middle half of the runs reach."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from paretune.core.errors import NonFiniteError, ShapeError


def interquartile_mean(scores: ArrayLike) -> float:
    """Return the mean of the middle half of all scores.

    A few runs that collapse, or that were lucky, do not move it; the median would ignore all but one or two runs.

    Args:
        scores: Of any shape, such as runs by tasks; higher or lower may be better.

    Raises:
        ShapeError: If there is no score.
        NonFiniteError: If a score is NaN or infinite.

    Source:
        Agarwal et al. 2021, Deep reinforcement learning at the edge of the statistical precipice.

    Departures:
        Scores at the edges of the middle half count in part, so that exactly a quarter is left out at either end;
        rliable leaves out a whole number of scores, and none of three.

    Example:
        >>> interquartile_mean([0.0, 1.0, 2.0, 9.0])
        1.5
    """
    sample = np.sort(np.asarray(scores, dtype=np.float64), axis=None)
    count = len(sample)
    if count == 0:
        raise ShapeError("scores must have at least one number, got none. Wait for a run to finish.")
    if not np.isfinite(sample).all():
        raise NonFiniteError("scores must be finite, got a NaN or infinity. Leave out runs without a score.")
    places = np.arange(count)  # score i covers [i, i + 1] of [0, n]; its weight is what lies within [n/4, 3n/4]
    weights = np.clip(np.minimum(places + 1, 0.75 * count) - np.maximum(places, 0.25 * count), 0, None)
    return float(weights @ sample / weights.sum())
