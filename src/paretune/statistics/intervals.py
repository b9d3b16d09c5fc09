"""The interval of a mean over seeds, and that of a share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from paretune.core.errors import ConfigError, NonFiniteError, ShapeError
from paretune.core.seeds import generator as stream
from paretune.statistics.bootstrap import expanded_percentiles, nested_bootstrap

BOOTSTRAP_FROM = 20  # seeds; below, resampling them repeats too few values to show how they vary


@dataclass(frozen=True)
class Interval:
    """A mean and, where there are at least two values, its confidence interval.

    Attributes:
        mean: Mean of the values.
        low: Lower end, or None.
        high: Upper end, or None.
        count: Number of values; of seeds, where each has several.
        reason: Why there are no ends; empty when there are.
        method: Which rule gave the ends, and from how much; empty when there are none.
    """

    mean: float
    low: float | None
    high: float | None
    count: int
    reason: str = ""
    method: str = ""


def mean_interval(
    values: ArrayLike, confidence: float = 0.95, generator: np.random.Generator | None = None
) -> Interval:
    """Return the mean over seeds with its interval, by the rule that suits the number of seeds, and say which it was.

    With one value per seed, or fewer than 20 seeds, Student-t on the seeds' means: at three to five seeds a percentile
    bootstrap covers about 80 % where it promises 95; the t interval keeps its word unless the values are far from
    normal. From 20 seeds with one value per seed and prompt, the nested bootstrap, which need not be symmetric.

    Either way the seeds carry the noise. What prompts do to all seeds alike, since all seeds answer them, is in no
    interval: it speaks of these prompts.

    Args:
        values: One per seed, `[S]`, or one per seed and prompt, `[S, P]`.
        confidence: Coverage, between 0 and 1.
        generator: Source of the bootstrap's draws; None always gives the same ones.

    Returns:
        The interval; without ends for one seed. Equal values give an interval of width 0.

    Raises:
        ShapeError: If there is no value, or there are more than two dimensions.
        NonFiniteError: If a value is NaN or infinite.
        ConfigError: If `confidence` is not between 0 and 1.

    Source:
        Student 1908, The probable error of a mean.

    Example:
        >>> mean_interval([0.4]).reason
        'one seed: no interval'
        >>> mean_interval([0.4, 0.5, 0.6]).method
        'Student-t over 3 values'
    """
    sample = finite_seeds(values, "values")
    check_confidence(confidence)
    count, mean = len(sample), float(sample.mean())
    if count == 1:
        return Interval(mean, None, None, 1, "one seed: no interval")
    if sample.ndim == 2 and count >= BOOTSTRAP_FROM:
        means = nested_bootstrap(sample, stream("mean interval") if generator is None else generator)
        low, high = expanded_percentiles(means, count, confidence)
        method = f"nested bootstrap over {count} seeds and {sample.shape[1]} prompts"
        return Interval(mean, low, high, count, method=method)
    method = f"Student-t over {count} {'values' if sample.ndim == 1 else 'seed means'}"
    per_seed = sample if sample.ndim == 1 else sample.mean(axis=1)
    error = float(per_seed.std(ddof=1) / np.sqrt(count))
    half = float(special.stdtrit(count - 1, (1 + confidence) / 2)) * error
    return Interval(mean, mean - half, mean + half, count, method=method)


def wilson_interval(
    share: ArrayLike, count: ArrayLike, confidence: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of the interval of a share, which has width at 0 and 1 as well.

    Args:
        share: Shares between 0 and 1, of any shape.
        count: Of how many independent draws each is the share, above 0; need not be whole. Broadcast to the shares.
        confidence: Coverage, between 0 and 1.

    Returns:
        Lower and upper ends, each of the shape of the shares, within [0, 1].

    Raises:
        ConfigError: If `confidence` is not between 0 and 1.

    Source:
        Wilson 1927, Probable inference, the law of succession, and statistical inference.

    Example:
        >>> low, high = wilson_interval(0.5, 10)
        >>> float(low.round(3)), float(high.round(3))
        (0.237, 0.763)
    """
    check_confidence(confidence)
    part = np.asarray(share, dtype=np.float64)
    squared = float(special.ndtri((1 + confidence) / 2)) ** 2 / np.asarray(count, dtype=np.float64)  # z^2 / n
    centre = (part + squared / 2) / (1 + squared)
    half = np.sqrt(squared * part * (1 - part) + squared**2 / 4) / (1 + squared)
    low = np.where(part == 0, 0.0, centre - half)  # exactly 0 and 1 there, but for rounding
    high = np.where(part == 1, 1.0, centre + half)
    return low, high


def check_confidence(confidence: float) -> None:
    """Refuse a confidence that is not between 0 and 1.

    Raises:
        ConfigError: If it is not.
    """
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence must lie between 0 and 1, got {confidence}. Write 95 % as 0.95.")


def finite_values(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return values as `[S]`, at least one of them, all finite.

    Raises:
        ShapeError: If there is none, or more than one dimension.
        NonFiniteError: If one is NaN or infinite.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or len(sample) == 0:
        raise ShapeError(
            f"{name} must be a list of at least one number, got shape {list(sample.shape)}. Give one number a seed."
        )
    if not np.isfinite(sample).all():
        raise NonFiniteError(f"{name} must be finite, got {sample.tolist()}. Leave out seeds without a value.")
    return sample


def finite_seeds(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return values as `[S]` or `[S, P]`, at least one of them, all finite.

    Raises:
        ShapeError: If there is none, or there are more than two dimensions.
        NonFiniteError: If one is NaN or infinite.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 2:
        return finite_values(values, name)
    if sample.size == 0:
        raise ShapeError(
            f"{name} must have at least one number per seed, got shape {list(sample.shape)}. Leave out empty seeds."
        )
    if not np.isfinite(sample).all():
        row = int(np.flatnonzero(~np.isfinite(sample).all(axis=1))[0])
        raise NonFiniteError(
            f"{name} must be finite, got a NaN or infinity for seed {row}. Leave that prompt out of all."
        )
    return sample
