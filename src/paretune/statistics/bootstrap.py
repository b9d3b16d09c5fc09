"""The nested bootstrap: seeds are drawn anew, and prompts within each of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

RESAMPLES = 4000  # moves the ends of a 95 % interval by about 1 % of its width from one run to the next
CHUNK = 1_000_000  # entries drawn at once, 8 MB: the memory used does not grow with the numbers of seeds and prompts


def nested_bootstrap(
    values: NDArray[np.float64], generator: np.random.Generator, resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """Return means of resampled values: seeds with replacement, then prompts with replacement within each.

    What a prompt does to all seeds alike is taken away first: seeds that share their prompts do not vary by it, and
    a draw of prompts would. What is left of a prompt's noise is already in the seeds' means, and a second draw would
    count it twice. The means are therefore drawn towards their common mean, such that both draws together vary as the
    seeds' means do. Prompts may be the same for all seeds or others for each.

    Args:
        values: One per seed and prompt, `[S, P]`, at least two seeds. For a difference of methods pass the differences:
            seeds and prompts are then drawn for both at once.
        generator: Source of randomness.
        resamples: Number of means R.

    Returns:
        `[R]`.

    Source:
        Davison and Hinkley 1997, Bootstrap methods and their application, section 3.8.

    Example:
        >>> nested_bootstrap(np.full((20, 3), 0.5), np.random.default_rng(0), resamples=2).tolist()
        [0.5, 0.5]
    """
    matched = _matched(values)
    seeds, prompts = values.shape
    step = max(1, CHUNK // values.size)
    means = []
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = generator.integers(seeds, size=(count, seeds, 1))
        within = generator.integers(prompts, size=(count, seeds, prompts))
        means.append(matched[drawn, within].mean(axis=(1, 2)))
    return np.concatenate(means)


def expanded_percentiles(means: NDArray[np.float64], seeds: int, confidence: float) -> tuple[float, float]:
    """Return the ends of an interval from bootstrapped means, at the levels where Student's t would lie.

    Plain percentiles lie at the normal quantile, which is too near for few seeds.

    Args:
        means: `[R]`.
        seeds: Number of seeds they were resampled from, at least two.
        confidence: Coverage, between 0 and 1.

    Source:
        Hesterberg 2015, What teachers should know about the bootstrap, expanded percentile interval.

    Departures:
        The factor sqrt(S / (S - 1)) of the width is already in `nested_bootstrap`.
    """
    reach = special.stdtrit(seeds - 1, (1 + confidence) / 2)
    low, high = np.quantile(means, [special.ndtr(-reach), special.ndtr(reach)])
    return float(low), float(high)


def _matched(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rescale values around their means so that a mean of a nested draw has variance B / S.

    B is the variance of the seeds' means and W that of prompts within a seed, each prompt's mean over seeds taken
    away. A nested draw of the values as they are has (B (S - 1) / S + W (P - 1) / P^2) / S. Where W / P happens to
    exceed B, it takes B's place: it is part of what seeds' means vary by.
    """
    seeds, prompts = values.shape
    mean = values.mean()
    own = values - values.mean(axis=0) + mean
    means = own.mean(axis=1, keepdims=True)
    between = float(means.var(ddof=1))
    within = float(own.var(axis=1, ddof=1).mean()) / prompts if prompts > 1 else 0.0  # W / P
    pull = np.sqrt(max(0.0, 1 - within / between) * seeds / (seeds - 1)) if between > 0 else 0.0
    stretch = np.sqrt(prompts / (prompts - 1)) if prompts > 1 else 1.0
    return np.asarray(mean + pull * (means - mean) + stretch * (own - means))
