"""What a policy over arms would have earned, from a log of another policy's pulls and their propensities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from paretune.bandits.policies import check_chances
from paretune.bandits.ridge import IntArray
from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError, NonFiniteError, ShapeError
from paretune.core.preferences import FloatArray

Estimator = Literal["ips", "snips", "doubly_robust"]
Below = Literal["refuse", "clip"]
NORMAL_95 = 1.959964  # half the width of a 95 % interval in standard errors; logs have hundreds of pulls


@dataclass(frozen=True, eq=False)
class Log:
    """N pulls of a known policy.

    Attributes:
        arms: Which arm each was of, `[N]`, counted from 0.
        propensities: The chance that it had when it was drawn, `[N]`.
        payoffs: What it was paid, `[N]`.
        predictions: What a model says that each arm would have been paid, `[N, A]`, for the doubly robust estimator. It
            must not have been fitted to the same pulls: fit it to other folds.
    """

    arms: IntArray
    propensities: FloatArray
    payoffs: FloatArray
    predictions: FloatArray | None = None

    def __post_init__(self) -> None:
        counts = {len(each) for each in (self.arms, self.propensities, self.payoffs)}
        if self.predictions is not None:
            counts.add(len(self.predictions))
        if len(counts) > 1 or counts == {0}:
            raise ShapeError(f"a log must have one entry for each pull, and one pull, got {sorted(counts)} entries.")
        if self.arms.dtype.kind not in "iu" or self.arms.min() < 0:
            raise ShapeError(
                f"arms of a log must be whole numbers from 0 on, got {self.arms.dtype} from {self.arms.min()} on. "
                "Count arms from the first, 0."
            )
        if self.predictions is not None and self.predictions.ndim != 2:
            raise ShapeError(
                f"predictions of a log must be of all arms, [N, A], got shape {list(self.predictions.shape)}. Predict "
                "every arm for each pull."
            )
        if not (np.isfinite(self.payoffs).all() and np.isfinite(self.propensities).all()):
            raise NonFiniteError("payoffs and propensities of a log must be finite, got NaN. Leave these pulls out.")
        if self.predictions is not None and not np.isfinite(self.predictions).all():
            raise NonFiniteError(
                "predictions of a log must be finite, got NaN or infinity. Mend the model, or leave them out for ips "
                "or snips."
            )
        if not ((self.propensities > 0) & (self.propensities <= 1 + 1e-9)).all():
            raise ConfigError(
                f"propensities must be above 0 and at most 1, got {self.propensities.min()} to "
                f"{self.propensities.max()}. Log the chances that arms were drawn by."
            )


@dataclass(frozen=True)
class Estimate:
    """What a policy would have earned a pull.

    Attributes:
        value: Mean, or of a difference of two policies; None where the log says nothing of it.
        low: Lower end of its 95 % interval, by the normal approximation.
        high: Upper end.
        pulls: Of how many pulls.
        effective_pulls: `(sum of weights)^2 / sum of squares`: of how many pulls of the policy itself one can say as
            much, at least 0. Of a difference, those of the target alone.
        clipped: How many propensities lay below the floor and were raised to it, which biases the value.
        reason: Why there is no value; empty where there is.
    """

    value: float | None
    low: float | None
    high: float | None
    pulls: int
    effective_pulls: float
    clipped: int = 0
    reason: str = ""


def estimate(
    log: Log,
    target: FloatArray,
    estimator: Estimator = "doubly_robust",
    against: FloatArray | None = None,
    floor: float = 0.0,
    below: Below = "refuse",
) -> Estimate:
    """Estimate what a policy earns a pull in the contexts of a log.

    `ips` weighs each payoff with `w = target / propensity`: no bias, much variance. `snips` divides by the mean weight,
    so that a constant added to all payoffs changes nothing but the value. `doubly_robust` is the value by the model,
    plus `w (payoff - prediction)`: no bias whatever the model says, and the less variance the better it is.

    Args:
        log: Of the policy that pulled.
        target: Chances of all arms under the policy in question, `[N, A]`.
        estimator: Which of the three.
        against: Chances under another policy; then the difference, target less that, with the interval of a paired one.
            Where the log says nothing of one of the two there is none, and `reason` says which.
        floor: Lowest propensity that is taken as it is.
        below: What becomes of lower ones: `refuse` says how many there are, `clip` raises and counts them.

    Raises:
        ConfigError: If rows of chances do not sum to one, propensities lie below the floor and are to be refused, or a
            model is needed and is not there.
        ShapeError: If chances do not have a row for each pull and a column for each arm that was pulled or predicted.

    Source:
        Horvitz and Thompson 1952; Swaminathan and Joachims 2015 (SNIPS); Dudik, Langford and Li 2011 (doubly robust).
    """
    check_choice("estimator", estimator, get_args(Estimator))
    check_choice("below", below, get_args(Below))
    for name, chances in (("target", target), ("against", target if against is None else against)):
        _check_chances(name, chances, log)
    low = int((log.propensities < floor).sum())
    if low and below == "refuse":
        raise ConfigError(
            f"propensities must be at least the floor {floor}, got {low} of {len(log.arms)} below it (lowest "
            f"{log.propensities.min():.3g}). Explore more, or write below='clip', which biases the value."
        )
    propensities = np.maximum(log.propensities, floor)
    rows = np.arange(len(log.arms))
    weights = target[rows, log.arms] / propensities
    found = _contributions(log, target, weights, estimator)
    size = float(weights.sum() ** 2 / (weights**2).sum()) if weights.any() else 0.0
    unseen = "the policy"
    if against is not None and found is not None:
        other = _contributions(log, against, against[rows, log.arms] / propensities, estimator)
        found, unseen = None if other is None else found - other, "the policy that it is compared with"
    if found is None:
        reason = f"no pull of the log is one that {unseen} would have made"
        return Estimate(None, None, None, len(rows), size, low, reason)
    value = float(found.mean())
    if len(rows) < 2:
        return Estimate(value, None, None, len(rows), size, low, "one pull has no interval")
    reach = NORMAL_95 * float(found.std(ddof=1)) / np.sqrt(len(rows))
    return Estimate(value, float(value - reach), float(value + reach), len(rows), size, low)


def _check_chances(name: str, chances: FloatArray, log: Log) -> None:
    if chances.ndim != 2 or len(chances) != len(log.arms) or log.arms.max() >= chances.shape[1]:
        raise ShapeError(
            f"{name} must have a row for each of {len(log.arms)} pulls and a column for each arm, got shape "
            f"{list(chances.shape)}."
        )
    if log.predictions is not None and log.predictions.shape[1] != chances.shape[1]:
        raise ShapeError(
            f"{name} must have a column for each of the {log.predictions.shape[1]} arms that are predicted, got "
            f"{chances.shape[1]}. Predict all arms, and no others."
        )
    check_chances(name, chances)


def _contributions(log: Log, target: FloatArray, weights: FloatArray, estimator: str) -> FloatArray | None:
    """Return numbers whose mean is the value, and whose spread is that of its error, `[N]`; None where there are none.

    SNIPS is a ratio of means; its spread is that of the linear part of its error (delta method).
    """
    if not weights.any():  # nothing was seen of what the policy would do; 0 would be no estimate of it
        return None
    if estimator == "ips":
        return np.asarray(weights * log.payoffs)
    if estimator == "snips":
        value = (weights * log.payoffs).sum() / weights.sum()
        return np.asarray(value + weights * (log.payoffs - value) / weights.mean())
    if log.predictions is None:
        raise ConfigError(
            "doubly_robust must have predictions of all arms in the log, got none. Fit a model to other pulls, or take "
            "ips or snips."
        )
    own = log.predictions[np.arange(len(log.arms)), log.arms]
    return np.asarray((target * log.predictions).sum(axis=1) + weights * (log.payoffs - own))
