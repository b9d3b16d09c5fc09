"""What the interval of a relation allows to say about two objectives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from paretune.core.errors import ConfigError

FloatArray = NDArray[np.float64]
Label = Literal["correlated", "independent", "competing", "undetermined"]
MARGIN = 0.15  # our choice: of a correlation, a cosine, or a change per unit of gain, what is too little to act on


@dataclass(frozen=True, eq=False)
class PairEstimates:
    """One number for every pair of objectives, with its interval.

    Attributes:
        values: Estimates `[K, K]`; NaN where there is none.
        low: Lower ends `[K, K]`; NaN where there is no interval.
        high: Upper ends `[K, K]`; NaN where there is no interval.
        reasons: Why there is no estimate or no interval, K rows of K; empty where there is one.
    """

    values: FloatArray
    low: FloatArray
    high: FloatArray
    reasons: tuple[tuple[str, ...], ...]

    def labels(self, margin: float = MARGIN) -> tuple[tuple[Label | None, ...], ...]:
        """Return the label of every pair, K rows of K; None where there is no interval."""
        return tuple(
            tuple(label(low, high, margin) for low, high in zip(lows, highs, strict=True))
            for lows, highs in zip(self.low.tolist(), self.high.tolist(), strict=True)
        )


@dataclass(frozen=True)
class PairEstimate:
    """One number for one pair of objectives; NaN with a reason where it is missing."""

    value: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    reason: str = ""


def label(low: float | None, high: float | None, margin: float = MARGIN) -> Label | None:
    """Say how two objectives relate, given the interval of their relation.

    An interval wholly above the margin is `correlated`, wholly below minus the margin `competing`, inside the two
    `independent`, and `undetermined` otherwise. To be independent is thus shown, not assumed where nothing was found.
    All labels are read from one interval, so that `independent` at 95 % is held to 97.5 % on either side, which is
    stricter than two one-sided tests.

    Args:
        low: Lower end; None or NaN if there is no interval.
        high: Upper end, alike.
        margin: The largest relation that counts as none.

    Returns:
        The label, or None without an interval.

    Raises:
        ConfigError: If `margin` is not positive, or `low` lies above `high`.

    Source:
        Schuirmann 1987, two one-sided tests: equivalence is an interval inside the margin.

    Departures:
        Schuirmann's tests at 5 % take the 90 % interval; here `independent` takes the interval of the other labels.

    Example:
        >>> label(0.2, 0.4), label(-0.1, 0.1), label(0.1, 0.3), label(None, None)
        ('correlated', 'independent', 'undetermined', None)
    """
    if not margin > 0:
        raise ConfigError(f"margin must be positive, got {margin}. Name the largest relation that counts as none.")
    if low is None or high is None or np.isnan(low) or np.isnan(high):
        return None
    if low > high:
        raise ConfigError(f"low must not lie above high, got {low} and {high}. Swap them.")
    if low > margin:
        return "correlated"
    if high < -margin:
        return "competing"
    return "independent" if -margin <= low and high <= margin else "undetermined"


def each_pair(objectives: int, estimate: Callable[[int, int], PairEstimate]) -> PairEstimates:
    """Return an estimate for every ordered pair of objectives."""
    rows = [[estimate(i, j) for j in range(objectives)] for i in range(objectives)]
    return PairEstimates(
        np.asarray([[pair.value for pair in row] for row in rows]),
        np.asarray([[pair.low for pair in row] for row in rows]),
        np.asarray([[pair.high for pair in row] for row in rows]),
        tuple(tuple(pair.reason for pair in row) for row in rows),
    )
