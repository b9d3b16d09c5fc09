"""What is believed of somebody's preference after some replies: points that stand for a distribution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paretune.core.preferences import FloatArray
from paretune.elicitation.answering import chance_of_a

POINTS = 512  # of a belief: the Monte-Carlo error of a mean weight is a twentieth of its spread
LEAST_NOISE, MOST_NOISE = 0.01, 1.0  # in units of the spread of utilities: replies are sure, or nearly blind
MOVES = 6  # of every point after each reply
STEP = 2.38  # over sqrt(2 d): ter Braak and Vrugt's for d dimensions
JITTER = 1e-3  # of a weight: points that were copied part


@dataclass(frozen=True, eq=False)
class Belief:
    """Equally likely points.

    Attributes:
        preferences: `[P, K]`.
        log_noise: Logarithm of the noise of replies in units of utility, `[P]`: how consistent somebody is, is inferred
            with what they want.
        bounds: Least and greatest `log_noise` that is held possible.
    """

    preferences: FloatArray
    log_noise: FloatArray
    bounds: tuple[float, float]

    @property
    def mean(self) -> FloatArray:
        """The mean preference, `[K]`: utilities are linear in it, so who has it is served best by what serves most."""
        return np.asarray(self.preferences.mean(axis=0))


def first_belief(options: FloatArray, generator: np.random.Generator, points: int = POINTS) -> Belief:
    """Return what is believed before any reply: every preference is equally likely, and every scale of the noise.

    Args:
        options: Scores, `[N, K]`; the noise is held to be .01 to 1 times the mean difference between the best and the
            worst of them.
        generator: Draws the points.
        points: How many, P.
    """
    preferences = generator.dirichlet(np.ones(options.shape[1]), points)
    utilities = preferences @ options.T
    spread = float((utilities.max(axis=1) - utilities.min(axis=1)).mean())
    bounds = float(np.log(LEAST_NOISE * spread)), float(np.log(MOST_NOISE * spread))
    return Belief(preferences, generator.uniform(*bounds, points), bounds)


def updated(
    belief: Belief, votes: FloatArray, shares: FloatArray, latest: int, generator: np.random.Generator
) -> Belief:
    """Return what is believed after one more reply.

    Points are drawn again by how likely they make the last reply, then each is moved by a chain that leaves the
    distribution after all replies as it is: a step is the difference of two points of the other half, so that steps are
    as long and as oblique as the distribution.

    Args:
        belief: After all replies but the last.
        votes: All replies as `answering.votes` returns them, `[V, K]`.
        shares: How much each vote counts, `[V]`.
        latest: How many of them, the last, the belief does not know.
        generator: Draws points and steps.

    Source:
        Chopin 2002 (resample and move); ter Braak and Vrugt 2008 (steps).
    """
    chance = np.exp(_log_likelihood(belief.preferences, belief.log_noise, votes[-latest:], shares[-latest:]))
    count = len(chance)
    places = (generator.random() + np.arange(count)) / count
    drawn = np.minimum(np.searchsorted(np.cumsum(chance) / chance.sum(), places), count - 1)
    order = generator.permutation(drawn)  # halves alike
    points = np.column_stack([belief.preferences[order], belief.log_noise[order]])
    known = _log_likelihood(points[:, :-1], points[:, -1], votes, shares)
    halves = np.arange(count // 2), np.arange(count // 2, count)
    for _ in range(MOVES):
        for moved, others in (halves, halves[::-1]):
            _move(points, known, moved, others, belief.bounds, votes, shares, generator)
    return Belief(points[:, :-1], points[:, -1], belief.bounds)


def _move(
    points: FloatArray,
    known: FloatArray,
    moved: NDArray[np.int64],
    others: NDArray[np.int64],
    bounds: tuple[float, float],
    votes: FloatArray,
    shares: FloatArray,
    generator: np.random.Generator,
) -> None:
    """Try one step of some points, in place; outside the simplex and the bounds nothing is possible."""
    count, objectives = len(moved), points.shape[1] - 1
    drawn = others[generator.integers(len(others), size=(2, count))]
    pairs = points[drawn[0]] - points[drawn[1]]
    length = STEP / np.sqrt(2 * objectives) * generator.uniform(0.3, 1.2, (count, 1))  # K - 1 weights and the noise
    jitter = generator.normal(0.0, JITTER, (count, objectives + 1))
    jitter[:, :-1] -= jitter[:, :-1].mean(axis=1, keepdims=True)  # weights still sum to 1
    tried = points[moved] + length * pairs + jitter
    inside = (tried[:, :-1] >= 0).all(axis=1) & (tried[:, -1] >= bounds[0]) & (tried[:, -1] <= bounds[1])
    found = np.full(count, -np.inf)
    found[inside] = _log_likelihood(tried[inside, :-1], tried[inside, -1], votes, shares)
    taken = np.log(generator.random(count)) < found - known[moved]
    points[moved[taken]], known[moved[taken]] = tried[taken], found[taken]


def _log_likelihood(
    preferences: FloatArray, log_noise: FloatArray, votes: FloatArray, shares: FloatArray
) -> FloatArray:
    """Return that of all votes for each point, `[P]`."""
    chances = chance_of_a(preferences @ votes.T, np.exp(log_noise)[:, None])  # [P, V]
    return np.asarray(np.log(chances) @ shares)
