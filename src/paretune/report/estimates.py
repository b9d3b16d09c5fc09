"""Means over seeds of the report's arrays, as `MetricValue`s that say why something is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from paretune.core.protocols import MetricValue
from paretune.metrics.seeds import seed_mean
from paretune.statistics.paired import paired_p_value

LEVEL = 0.05  # of all differences that are told apart together


def column_mean(values: NDArray[np.float64], seeds: Sequence[int], missing: str = "no seed has a value") -> MetricValue:
    """Average `[S]` values over the seeds that have one, as every metric does.

    Args:
        values: One per seed; NaN where there is none.
        seeds: Their names.
        missing: Reason to give where no seed has a value.
    """
    measured = {seed: float(value) for seed, value in zip(seeds, values, strict=True) if np.isfinite(value)}
    return seed_mean(measured, missing="" if measured else missing)


def difference(first: MetricValue, second: MetricValue) -> MetricValue:
    """Return the mean of `first - second` with its interval, seed by seed, over the seeds that both have."""
    common = [seed for seed in first.per_seed if seed in second.per_seed]
    values = np.array([first.per_seed[seed] - second.per_seed[seed] for seed in common])
    return column_mean(values, common)


def p_value(first: Mapping[int, float], second: Mapping[int, float]) -> float:
    """Return the paired t-test's p-value over the seeds that both have; 1 where these are fewer than two."""
    common = [seed for seed in first if seed in second]
    found = paired_p_value([first[seed] for seed in common], [second[seed] for seed in common]) if common else None
    return 1.0 if found is None else found
