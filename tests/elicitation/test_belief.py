from __future__ import annotations

import numpy as np
import pytest

from paretune.core.preferences import FloatArray
from paretune.elicitation.answering import chance_of_a
from paretune.elicitation.belief import LEAST_NOISE, MOST_NOISE, Belief, first_belief, updated

OPTIONS = np.array([[1.0, 0.0], [0.6, 0.6], [0.0, 1.0]])
VOTES = np.array([[0.4, -0.6], [-0.6, 0.4], [0.4, -0.6], [1.0, -1.0]])


def after(votes: FloatArray, points: int = 512) -> Belief:
    random = np.random.default_rng(0)
    belief = first_belief(OPTIONS, random, points)
    for last in range(1, len(votes) + 1):
        belief = updated(belief, votes[:last], np.ones(last), 1, random)
    return belief


def by_integration(votes: FloatArray, bounds: tuple[float, float], shares: FloatArray | float = 1.0) -> FloatArray:
    """Return mean, 2.5 % and 97.5 % quantile of the first weight, summed over a fine grid of weights and noises."""
    first = (np.arange(400) + 0.5) / 400
    noise = np.exp(bounds[0] + (bounds[1] - bounds[0]) * (np.arange(100) + 0.5) / 100)
    gaps = np.stack([first, 1 - first], axis=1) @ votes.T
    likely = (chance_of_a(gaps[:, None], noise[None, :, None]) ** shares).prod(axis=2).sum(axis=1)
    likely /= likely.sum()
    ends = np.searchsorted(np.cumsum(likely), [0.025, 0.975])
    return np.array([likely @ first, *first[ends]])


def test_nothing_is_known_before_a_reply() -> None:
    belief = first_belief(OPTIONS, np.random.default_rng(0), 4096)
    assert belief.preferences.sum(axis=1) == pytest.approx(np.ones(4096))
    assert belief.mean == pytest.approx([0.5, 0.5], abs=0.02)  # four standard errors of sqrt(1/12) / 64
    # to weights (x, 1 - x), x below .5, the options are worth x, .6 and 1 - x: the best less the worst is 1 - 2x below
    # .4 and .6 - x above, 2 (.24 + .015) = .51 on average by symmetry
    assert np.exp(belief.bounds) == pytest.approx(np.array([LEAST_NOISE, MOST_NOISE]) * 0.51, rel=0.03)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_points_stand_for_the_distribution_that_bayes_rule_gives(count: int) -> None:
    """Mean and both ends of the interval agree with a sum over a grid."""
    votes = VOTES[:count]
    belief = after(votes, points=4096)
    found = belief.preferences[:, 0]
    ends = np.quantile(found, [0.025, 0.975])
    assert np.array([found.mean(), *ends]) == pytest.approx(by_integration(votes, belief.bounds), abs=0.03)


def test_points_stay_on_the_simplex_and_within_bounds() -> None:
    random = np.random.default_rng(1)
    for objectives in range(2, 7):
        options = random.uniform(size=(8, objectives))
        belief = first_belief(options, random)
        votes = random.normal(size=(12, objectives))
        for last in range(1, 13):
            belief = updated(belief, votes[:last], np.ones(last), 1, random)
        assert (belief.preferences >= 0).all()
        assert belief.preferences.sum(axis=1) == pytest.approx(np.ones(len(belief.preferences)))
        assert (belief.bounds[0] <= belief.log_noise).all()
        assert (belief.log_noise <= belief.bounds[1]).all()
        assert len(np.unique(belief.preferences, axis=0)) > len(belief.preferences) / 2  # copies were moved apart


def test_who_contradicts_themselves_is_believed_to_be_noisy() -> None:
    steady = np.tile(VOTES[3], (6, 1))
    torn = steady * np.array([1, -1, 1, -1, 1, -1])[:, None]
    assert after(steady).log_noise.mean() < after(torn).log_noise.mean()
    assert np.ptp(np.quantile(after(torn).preferences[:, 0], [0.025, 0.975])) > 0.2  # and is not known well


def test_votes_count_by_their_shares() -> None:
    """Half a vote either way, as of no preference, is a square root each."""
    votes, shares = np.array([[0.4, -0.6], [1.0, -1.0], [-1.0, 1.0]]), np.array([1.0, 0.5, 0.5])
    random = np.random.default_rng(0)
    belief = first_belief(OPTIONS, random, 4096)
    belief = updated(belief, votes[:1], shares[:1], 1, random)
    belief = updated(belief, votes, shares, 2, random)
    found = belief.preferences[:, 0]
    ends = np.quantile(found, [0.025, 0.975])
    assert np.array([found.mean(), *ends]) == pytest.approx(by_integration(votes, belief.bounds, shares), abs=0.03)
