"""Means over seeds with their intervals, as `MetricValue`s that say why something is missing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from paretune.core.protocols import MetricValue
from paretune.statistics.intervals import mean_interval


def over_seeds(values: NDArray[np.float64], seeds: Sequence[int], missing: str = "no finished cell") -> MetricValue:
    """Average `[S]` values over the seeds that have one, with a 95 % Student-t interval from two seeds on.

    Args:
        values: One per seed; NaN where there is none.
        seeds: Their names.
        missing: Reason to give where no seed has a value.
    """
    per_seed = {seed: float(value) for seed, value in zip(seeds, values, strict=True) if np.isfinite(value)}
    if not per_seed:
        return MetricValue(None, reason=missing)
    found = mean_interval(list(per_seed.values()))
    return MetricValue(found.mean, found.low, found.high, per_seed, found.reason)
