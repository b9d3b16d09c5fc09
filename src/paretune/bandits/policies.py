"""How likely each arm is to be pulled: chances from what is known of payoffs, the whole vector of them."""

from __future__ import annotations

import numpy as np
from scipy import special

from paretune.bandits.ridge import IntArray
from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError, NonFiniteError
from paretune.core.preferences import SUM_TOLERANCE, FloatArray

EXPLORATION = {  # algorithm -> how much it explores where a setting does not say
    "greedy": 0.0,
    "epsilon_greedy": 0.1,  # chance of an arm at random
    "linucb": 1.5,  # standard deviations of a prediction; untuned
    "thompson": 0.75,  # of them, by which draws are spread; untuned
    "squarecb": 10.0,  # of gaps in standard deviations of the noise, times the root of the pulls: Vowpal Wabbit's
}
TIE = 1e-9  # payoffs that are one
_NODES, _MASSES = np.polynomial.hermite.hermgauss(48)


def probabilities(
    algorithm: str,
    means: FloatArray,
    deviations: FloatArray,
    noise: FloatArray,
    pulls: int,
    exploration: float | None = None,
    floor: float = 0.0,
) -> FloatArray:
    """Return the chance of each arm for N decisions, `[N, A]`, each row summing to one.

    Args:
        algorithm: One of `EXPLORATION`.
        means: Payoffs as predicted, `[N, A]`.
        deviations: Standard deviation of each prediction, `[N, A]`.
        noise: Standard deviation of a payoff itself, `[N]`.
        pulls: How many have been made.
        exploration: How much is explored, in the units of `EXPLORATION`; None takes what is there.
        floor: Share of all pulls that are of an arm at random: no chance is below `floor / A`.

    Raises:
        UnknownNameError: If there is no such algorithm.
        ConfigError: If floor or exploration are out of range.
        NonFiniteError: If what is known of payoffs is not finite.
    """
    check_choice("algorithm", algorithm, EXPLORATION)
    for name, each in (("means", means), ("deviations", deviations), ("noise", noise)):
        if not np.isfinite(each).all():
            raise NonFiniteError(
                f"{name} of payoffs must be finite, got NaN or infinity. Leave out the pulls they were learned from."
            )
    strength = EXPLORATION[algorithm] if exploration is None else exploration
    check_exploration(algorithm, strength, floor)
    if algorithm == "greedy":
        chances = greedy(means)
    elif algorithm == "epsilon_greedy":
        chances = mixed(greedy(means), strength)
    elif algorithm == "linucb":
        chances = greedy(means + strength * deviations)
    elif algorithm == "thompson":
        chances = thompson(means, strength * deviations)
    else:
        chances = square_cb(means, strength * np.sqrt(pulls) / noise)
    return mixed(chances, floor)


def check_exploration(algorithm: str, exploration: float | None, floor: float) -> None:
    """Check how much is explored.

    Raises:
        ConfigError: If the exploration is negative or not finite, no share where it must be one, or the floor is none.
    """
    if exploration is not None:
        most = 1.0 if algorithm == "epsilon_greedy" else np.inf
        if not (0 <= exploration <= most and np.isfinite(exploration)):
            raise ConfigError(
                f"exploration must be finite, not negative{' and at most 1' if most == 1 else ''} for {algorithm}, got "
                f"{exploration}. Leave it out for {EXPLORATION[algorithm]}."
            )
    if not 0 <= floor <= 1:
        raise ConfigError(f"floor must be a share between 0 and 1, got {floor}. Try 0.05.")


def mixed(chances: FloatArray, share: float) -> FloatArray:
    """Return chances `[N, A]` of which a share goes to all arms alike."""
    return np.asarray((1 - share) * chances + share / chances.shape[1])


def greedy(means: FloatArray) -> FloatArray:
    """Return all chance for the best arm, in equal parts for those that tie, `[N, A]`."""
    best = means >= means.max(axis=1, keepdims=True) - TIE
    return np.asarray(best / best.sum(axis=1, keepdims=True))


def thompson(means: FloatArray, deviations: FloatArray) -> FloatArray:
    """Return the chance that each arm is the best, payoffs being independent and Gaussian, `[N, A]`.

    To draw by it is Thompson sampling, and its propensities are known: what is integrated here is drawn there. One
    integral for each arm, `E prod_b Phi((x_a - mean_b) / deviation_b)`, by Gauss-Hermite quadrature, normalised.

    Source:
        Agrawal and Goyal 2013, Thompson sampling for contextual bandits with linear payoffs.

    Departures:
        A quadrature of 48 nodes placed by each arm's own deviation. Chances of two arms are right to .00001 where their
        deviations differ by a factor of up to 3, to .0002 up to 4, to .02 up to 10, and to .06 at worst: means 0 and .2
        with deviations 1 and .01 give .537 for the second, in truth .579. Arms are drawn by these very chances, so
        propensities are exact whatever they miss.

    Example:
        >>> thompson(np.asarray([[0.0, 0.0], [0.0, 1.0]]), np.ones((2, 2))).round(3).tolist()
        [[0.5, 0.5], [0.24, 0.76]]
    """
    if not deviations.any():
        return greedy(means)
    spread = np.maximum(deviations, 1e-12)
    drawn = means[:, :, None] + np.sqrt(2) * spread[:, :, None] * _NODES  # [N, A, Q], payoffs of arm a
    above = np.ones_like(drawn)  # chance that all other arms are paid less
    for other in range(means.shape[1]):  # one by one: together they would take A times the memory
        below = special.ndtr((drawn - means[:, other, None, None]) / spread[:, other, None, None])
        below[:, other] = 1.0  # no arm is compared with itself
        above *= below
    chances = (above * _MASSES).sum(axis=2)
    return np.asarray(chances / chances.sum(axis=1, keepdims=True))


def square_cb(means: FloatArray, gamma: FloatArray) -> FloatArray:
    """Return `1 / (A + gamma (best - mean))` for all arms but the best, which gets the rest, `[N, A]`.

    Args:
        means: Payoffs as predicted, `[N, A]`.
        gamma: How much a gap counts, `[N]`; 0 is an arm at random.

    Source:
        Foster and Rakhlin 2020, Beyond UCB (SquareCB); inverse gap weighting of Abe and Long 1999.

    Example:
        >>> square_cb(np.asarray([[1.0, 0.5, 0.0]]), np.asarray([4.0])).round(3).tolist()
        [[0.657, 0.2, 0.143]]
    """
    arms = means.shape[1]
    best = means.argmax(axis=1)
    chances = 1 / (arms + gamma[:, None] * (means.max(axis=1, keepdims=True) - means))
    rows = np.arange(len(means))
    chances[rows, best] = 0.0
    chances[rows, best] = 1 - chances.sum(axis=1)
    return np.asarray(chances)


def answers(means: FloatArray, deviations: FloatArray, caution: float) -> IntArray:
    """Return the arm that answers each of N decisions once nothing is learned any more, `[N]`.

    It is the arm of the highest `mean_a - mean_0 - caution sqrt(deviation_a^2 + deviation_0^2)`, or the first one where
    none is above 0: the first arm is what would answer without a bandit, and is left for what is known to be better.

    Args:
        means: Payoffs as predicted, `[N, A]`.
        deviations: Standard deviation of each prediction, `[N, A]`.
        caution: Standard deviations of the difference; 0 is the best arm by the means.

    Example:
        >>> means, deviations = np.asarray([[0.0, 0.3, 0.4]]), np.asarray([[0.0, 0.1, 0.3]])
        >>> [int(answers(means, deviations, caution)[0]) for caution in (0.0, 1.0, 4.0)]
        [2, 1, 0]
    """
    gains = means - means[:, :1] - caution * np.sqrt(deviations**2 + deviations[:, :1] ** 2)
    gains[:, 0] = 0.0
    return np.asarray(gains.argmax(axis=1), dtype=np.int64)


def check_chances(name: str, chances: FloatArray) -> None:
    """Check that every row of chances `[N, A]` is a distribution over arms.

    Raises:
        ConfigError: If a row has a negative chance or none that is a number, or does not sum to one.
    """
    sums = chances.sum(axis=1)
    wrong = ~((chances >= 0).all(axis=1) & (np.abs(sums - 1) <= SUM_TOLERANCE))  # NaN is wrong, too
    if wrong.any():
        row = int(wrong.argmax())
        raise ConfigError(
            f"{name} must be non-negative and sum to 1 in every row, got {chances[row].round(4).tolist()} (sum "
            f"{sums[row]:.4g}) in row {row}. Give the chances of all arms."
        )


def drawn(chances: FloatArray, uniforms: FloatArray) -> IntArray:
    """Draw an arm for each row of chances `[N, A]`, by one uniform number each and the inverse of cumulated chances.

    Raises:
        ConfigError: If a row of chances is no distribution.
    """
    check_chances("chances", chances)
    arms = (chances.cumsum(axis=1) <= uniforms[:, None]).sum(axis=1)
    return np.asarray(np.minimum(arms, chances.shape[1] - 1), dtype=np.int64)  # the last sum may miss 1 by a last bit
