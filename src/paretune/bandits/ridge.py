"""Ridge regression of several outputs for each arm, drawn towards what all arms have in common."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paretune.core.errors import ConfigError, NonFiniteError, ShapeError
from paretune.core.preferences import FloatArray

IntArray = NDArray[np.int64]
COMMON_RIDGE = 1.0  # of what all arms have in common, which all pulls tell of: enough for an inverse, and little more


class Ridge(NamedTuple):
    """What A arms have learned of O outputs from contexts of d features.

    Attributes:
        ridge: lambda, how strongly an arm is drawn to what all have in common: the variance of an output's noise over
            that of what an arm adds to a coefficient.
        inverses: `(lambda I + sum c c')^-1` over the pulls of each arm, `[A, d, d]`.
        sums: `sum c x'` over the pulls of each arm, `[A, d, O]`.
        common_inverse: `(COMMON_RIDGE I + sum c c')^-1` over all pulls, `[d, d]`.
        moments: `sum x x'` over all pulls, `[O, O]`.
        counts: Pulls of each arm, `[A]`.
    """

    ridge: float
    inverses: FloatArray
    sums: FloatArray
    common_inverse: FloatArray
    moments: FloatArray
    counts: IntArray


class Fitted(NamedTuple):
    """What predicting takes of A arms that have learned O outputs from contexts of d features.

    Attributes:
        theta: Coefficients of each arm, `[A, d, O]`, see `coefficients`.
        inverses: How well each is known, `[A, d, d]`, see `Ridge`.
        covariance: Of outputs around what all arms have in common, `[O, O]`, see `residuals`.
    """

    theta: FloatArray
    inverses: FloatArray
    covariance: FloatArray


class Payoffs(NamedTuple):
    """What each of A arms would be paid in N contexts, as predicted.

    Attributes:
        means: `[N, A]`.
        deviations: Standard deviation of each prediction, `[N, A]`.
        noise: Standard deviation of a payoff itself, `[N]`.
    """

    means: FloatArray
    deviations: FloatArray
    noise: FloatArray


def fresh(arms: int, features: int, outputs: int, ridge: float) -> Ridge:
    """Return arms that were never pulled.

    Raises:
        ConfigError: If the ridge is not positive: then no inverse exists.
    """
    if not 0 < ridge < np.inf:
        raise ConfigError(f"ridge must be positive, got {ridge}. Try 10.0.")
    one = np.eye(features)
    return Ridge(
        ridge, np.repeat(one[None] / ridge, arms, axis=0), np.zeros((arms, features, outputs)), one / COMMON_RIDGE,
        np.zeros((outputs, outputs)), np.zeros(arms, dtype=np.int64),
    )  # fmt: skip


def updated(known: Ridge, arms: IntArray, contexts: FloatArray, outputs: FloatArray) -> Ridge:
    """Return what is known after some pulls, one after the other, by the Sherman-Morrison identity.

    No matrix is inverted, and all outputs of an arm share its inverse. What comes of it is the same to the last bit
    whether pulls come at once or in parts.

    Args:
        known: Left as it is.
        arms: Which arm each of N pulls was of, `[N]`.
        contexts: c of each, `[N, d]`.
        outputs: x of each, `[N, O]`.

    Raises:
        NonFiniteError: If a context or an output is not finite.
        ShapeError: If there is no such arm.
    """
    if not (np.isfinite(contexts).all() and np.isfinite(outputs).all()):
        raise NonFiniteError("contexts and outputs must be finite, got NaN or infinity. Leave these pulls out.")
    if len(arms) and not (arms.min() >= 0 and arms.max() < len(known.sums)):
        raise ShapeError(
            f"arms must be of 0 to {len(known.sums) - 1}, got {arms.min()} to {arms.max()}. Count arms from 0."
        )
    inverses, sums, common = known.inverses.copy(), known.sums.copy(), known.common_inverse.copy()
    moments = known.moments.copy()
    for arm, context, output in zip(arms, contexts, outputs, strict=True):
        add_to_inverse(inverses[arm], context)
        add_to_inverse(common, context)
        sums[arm] += np.outer(context, output)
        moments += np.outer(output, output)
    counts = known.counts + np.bincount(arms, minlength=len(sums))
    return Ridge(known.ridge, inverses, sums, common, moments, counts)


def add_to_inverse(inverse: FloatArray, context: FloatArray) -> None:
    """Turn the inverse of A `[d, d]` into that of `A + c c'`, in place, by the Sherman-Morrison identity.

    Args:
        inverse: Symmetric, as inverses of sums of `c c'` are.
        context: c, `[d]`.
    """
    reach = inverse @ context
    inverse -= np.outer(reach, reach) / (1 + context @ reach)


def fitted(known: Ridge) -> Fitted:
    """Return what predicting takes of what arms have learned."""
    return Fitted(coefficients(known), known.inverses, residuals(known))


def payoffs(known: Fitted, contexts: FloatArray, payoff_weights: FloatArray) -> Payoffs:
    """Return what all arms would be paid, `v . x`, and how sure that is.

    Args:
        known: What the arms have learned.
        contexts: c, `[N, d]`.
        payoff_weights: v, `[N, O]`.
    """
    means = np.einsum("nao,no->na", predicted(known.theta, contexts), payoff_weights)
    spread = noise(known.covariance, payoff_weights)
    return Payoffs(np.asarray(means), spread[:, None] * widths(known.inverses, contexts), spread)


def coefficients(known: Ridge) -> FloatArray:
    """Return Theta of each arm, `[A, d, O]`: predictions are `Theta' c`.

    `B = (COMMON_RIDGE I + sum c c')^-1 sum c x'` over all pulls is what arms have in common, and
    `Theta_a = A_a^-1 (b_a + lambda B)` minimises `sum |x - Theta' c|^2 + lambda |Theta - B|^2` over the arm's own. An
    arm that was never pulled does as all do.
    """
    common = known.common_inverse @ known.sums.sum(axis=0)
    return np.asarray(known.inverses @ (known.sums + known.ridge * common))


def predicted(theta: FloatArray, contexts: FloatArray) -> FloatArray:
    """Return outputs of all arms in contexts `[N, d]` under coefficients `[A, d, O]`, `[N, A, O]`."""
    return np.asarray(np.einsum("nd,ado->nao", contexts, theta))


def widths(inverses: FloatArray, contexts: FloatArray) -> FloatArray:
    """Return `sqrt(c' A_a^-1 c)`, the error of each arm's prediction for noise of standard deviation 1, `[N, A]`.

    Args:
        inverses: Of each arm, `[A, d, d]`, see `Ridge`.
        contexts: c, `[N, d]`.
    """
    squares = np.einsum("nd,ade,ne->na", contexts, inverses, contexts)
    return np.asarray(np.sqrt(np.maximum(squares, 0)))


def residuals(known: Ridge) -> FloatArray:
    """Return the covariance of outputs around what all arms have in common, `[O, O]`; 1 each where nothing is known.

    Squares of what the common fit leaves, over `tr((I - H)^2)` in place of the number of pulls, where H is the matrix
    from outputs to fitted outputs: d coefficients fit a part of the noise, too, most where pulls are few. Unbiased
    where contexts say nothing; where they do, what shrinking leaves of it counts as noise.

    Source: Hastie, Tibshirani and Friedman (2009), *The Elements of Statistical Learning*, section 5.4.1 (degrees of
    freedom of linear smoothers).
    """
    if not known.counts.sum():
        return np.eye(len(known.moments))
    sums = known.sums.sum(axis=0)
    common = known.common_inverse @ sums
    gram = np.linalg.inv(known.common_inverse) - COMMON_RIDGE * np.eye(len(sums))
    cross = common.T @ sums
    left = known.moments - cross - cross.T + common.T @ gram @ common
    # I - H has an eigenvalue COMMON_RIDGE / (COMMON_RIDGE + s) for each s of the d of the Gram matrix, and else 1
    degrees = known.counts.sum() - len(sums) + COMMON_RIDGE**2 * float((known.common_inverse**2).sum())
    return np.asarray(left / degrees)


def noise(covariance: FloatArray, payoff_weights: FloatArray) -> FloatArray:
    """Return the standard deviation of payoffs `v . x`, `[N]`.

    Args:
        covariance: Of outputs, `[O, O]`.
        payoff_weights: v, `[N, O]`.
    """
    variances = np.einsum("no,op,np->n", payoff_weights, covariance, payoff_weights)
    return np.asarray(
        np.sqrt(np.maximum(variances, 1e-12))
    )  # without any noise rounding is left, which may be negative
