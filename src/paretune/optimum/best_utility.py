"""The best policy for a concave utility of several scores where all completions can be listed, by duality.

A concave utility that rises in every score is a lower envelope of planes: `u(J) = min_x lambda(x) . J + c(x)`. The set
of attainable J is convex, so `max_pi u(J) = min_x h(lambda(x)) + c(x)`, where `h(lambda) = max_pi lambda . J` is known
in closed form and smooth. So the best policy for u is the best one for *some* weighted sum: here for `lambda`.

No method and no metric calls this, as it takes a list of all completions: it is what tests compare with, those of
docs/theory.md and of the evidence of `chebyshev` in docs/papers.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from paretune.core.errors import ConfigError, NonFiniteError
from paretune.optimum.exact import check_beta, log_optimum, outcome

FloatArray = NDArray[np.float64]
LEAST = 1e-12  # of a share: x log x has no slope at 0
GAP = 1e-6  # between what the found policy has and what none can exceed, in units of the utility


@dataclass(frozen=True, eq=False)
class Envelope:
    """`u(J) = constant + min_x sum_k a_k (x_k + rho) (J_k - z_k) + tau sum_k x_k log x_k`.

    Attributes:
        slopes: a, not negative, `[K]`.
        targets: z, `[K]`.
        augmentation: rho.
        smoothing: tau.
        least: x lies on the simplex of the objectives with a slope if None, else each x_k from `least` to 1.
        constant: Added to it.
    """

    slopes: FloatArray
    targets: FloatArray
    augmentation: float = 0.0
    smoothing: float = 0.0
    least: float | None = None
    constant: float = 0.0


@dataclass(frozen=True, eq=False)
class BestUtility:
    """What no policy exceeds, and a policy that has it.

    Attributes:
        utility: The highest attainable.
        scores: `J_k` of the policy that has it, `[K]`.
        preference: The weighted sum for which it is the best policy, `[K]`.
    """

    utility: float
    scores: FloatArray
    preference: FloatArray


def chebyshev_envelope(
    preference: FloatArray, ideal: FloatArray, nadir: FloatArray, smoothing: float = 0.0, augmentation: float = 0.0
) -> Envelope:
    """Return the Chebyshev utility, smooth or augmented if asked for, as an envelope; see `pareto.scalarisation`."""
    return Envelope(preference / (ideal - nadir), ideal, augmentation, smoothing)


def threshold_envelope(preference: FloatArray, thresholds: FloatArray, beyond: float) -> Envelope:
    """Return the threshold utility as an envelope; see `pareto.scalarisation`."""
    return Envelope(preference, thresholds, least=beyond, constant=float(preference @ thresholds))


def best_utility(log_reference: FloatArray, rewards: FloatArray, beta: float, envelope: Envelope) -> BestUtility:
    """Return the highest value of a concave utility that any policy attains, and a policy's scores that have it.

    Args:
        log_reference: Log-probabilities of all completions under the base model, `[P, Y]`.
        rewards: `[P, Y, K]`.
        beta: What a nat of KL costs, in units of reward.
        envelope: The utility, of `J_k = E r_k - beta KL`, averaged over prompts.

    Raises:
        ConfigError: If no objective has a slope, or `beta` is not positive.
        NonFiniteError: If the minimum was not found.

    Source:
        Minimax theorem (Sion 1958); the optimum for a weighted sum of Korbak et al. 2022.
    """
    check_beta(beta)
    wanted = np.flatnonzero(envelope.slopes > 0)
    if not len(wanted):
        raise ConfigError(f"slopes must have one above 0, got {envelope.slopes.tolist()}. Give an objective weight.")

    def weights(x: FloatArray) -> FloatArray:
        full = np.zeros(len(envelope.slopes))
        full[wanted] = envelope.slopes[wanted] * (x + envelope.augmentation)
        return full

    def attained(x: FloatArray) -> FloatArray:
        slopes = weights(x)
        log_probs = log_optimum(log_reference, rewards, slopes / slopes.sum(), beta)
        return outcome(log_probs, log_reference, rewards).scores(beta)

    def dual(x: FloatArray) -> tuple[float, FloatArray]:
        x = np.clip(x, LEAST, None)  # as a line search may step outside
        gaps = attained(x) - envelope.targets  # its slope in x is the attained gap itself: the envelope theorem
        entropy, slope = (x * np.log(x)).sum(), np.log(x) + 1
        value = float(weights(x) @ gaps + envelope.smoothing * entropy)
        return value, np.asarray(envelope.slopes[wanted] * gaps[wanted] + envelope.smoothing * slope)

    on_simplex = envelope.least is None
    start = np.full(len(wanted), 1 / len(wanted) if on_simplex else 1.0)
    low = LEAST if envelope.least is None else max(envelope.least, LEAST)
    equal = ({"type": "eq", "fun": lambda x: x.sum() - 1, "jac": np.ones_like},) if on_simplex else ()
    found = minimize(
        dual, start, jac=True, bounds=[(low, 1.0)] * len(wanted), constraints=equal, method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-13},
    )  # fmt: skip
    scores = attained(np.clip(found.x, LEAST, None))
    upper, lower = dual(found.x)[0], _value(envelope, scores)
    width = float(np.abs(envelope.slopes).sum())
    if not upper - lower <= max(GAP * width, 1e-4 * abs(upper)):
        raise NonFiniteError(
            f"the best utility must be found, got bounds {lower:.6g} and {upper:.6g} after {found.nit} steps. Give "
            "thresholds or an ideal point nearer to what can be reached."
        )
    slopes = weights(np.clip(found.x, LEAST, None))
    return BestUtility(upper + envelope.constant, scores, slopes / slopes.sum())


def _value(envelope: Envelope, scores: FloatArray) -> float:
    """Return the utility of scores `[K]`, without the constant: the minimum over x in closed form."""
    wanted = envelope.slopes > 0
    terms = (envelope.slopes * (scores - envelope.targets))[wanted]
    if envelope.least is not None:
        return float(np.minimum(terms, envelope.least * terms).sum())
    extra = envelope.augmentation * terms.sum()
    if envelope.smoothing > 0:
        return float(extra - envelope.smoothing * np.logaddexp.reduce(-terms / envelope.smoothing))
    return float(extra + terms.min())
