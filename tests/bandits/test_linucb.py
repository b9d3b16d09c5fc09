from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.bandits.linucb import chosen, fresh, updated, upper_bounds
from paretune.core.errors import ConfigError, NonFiniteError, ShapeError


def test_one_paid_pull_by_hand() -> None:
    # ridge 1, c = (1, 0), x = 2: A = diag(2, 1), theta = (1, 0); at c the bound is 1 + .5 sqrt(1/2), unpulled .5 * 1
    context = np.asarray([1.0, 0.0])
    known = updated(fresh(2, 2, 1.0), 0, context, 2.0)
    np.testing.assert_allclose(upper_bounds(known, context, 0.5), [1 + 0.5 * np.sqrt(0.5), 0.5])


@given(st.integers(0, 10**6), st.integers(1, 8), st.floats(0.1, 10))
def test_updates_are_the_closed_form_of_ridge_regression(seed: int, features: int, ridge: float) -> None:
    generator = np.random.default_rng(seed)
    contexts, payoffs = generator.normal(size=(40, features)), generator.normal(size=40)
    arms = generator.integers(0, 3, 40)
    known = fresh(3, features, ridge)
    for arm, context, payoff in zip(arms, contexts, payoffs, strict=True):
        known = updated(known, int(arm), context, float(payoff))
    now = generator.normal(size=features)
    for arm in range(3):
        own = contexts[arms == arm]
        matrix = ridge * np.eye(features) + own.T @ own
        theta = np.linalg.solve(matrix, own.T @ payoffs[arms == arm])
        bound = theta @ now + 0.7 * np.sqrt(now @ np.linalg.solve(matrix, now))
        assert upper_bounds(known, now, 0.7)[arm] == pytest.approx(bound, abs=1e-8)


def regret(alpha: float, seed: int, rounds: int = 600) -> tuple[float, float]:
    """Return mean regret a round of the first and of the last sixth: linear payoffs, five arms, noise .2."""
    generator = np.random.default_rng(seed)
    truth = generator.normal(size=(5, 4)) / 2
    known, lost = fresh(5, 4, 1.0), []
    for _ in range(rounds):
        context = generator.normal(size=4)
        arm = chosen(upper_bounds(known, context, alpha), generator)
        means = truth @ context
        lost.append(means.max() - means[arm])
        known = updated(known, arm, context, means[arm] + 0.2 * generator.normal())
    return float(np.mean(lost[: rounds // 6])), float(np.mean(lost[-rounds // 6 :]))


def test_regret_a_round_vanishes() -> None:
    found = np.asarray([regret(0.5, seed) for seed in range(8)])
    assert found[:, 0].mean() > 5 * found[:, 1].mean()
    assert found[:, 1].mean() < 0.02  # an arm at random loses the mean of 5 normals' maximum, about 1.1


def test_ties_are_broken_by_chance_and_what_is_best_is_taken() -> None:
    generator = np.random.default_rng(0)
    counts = np.bincount([chosen(np.asarray([1.0, 0.0, 1.0]), generator) for _ in range(1000)], minlength=3)
    assert counts[1] == 0
    assert counts[0] == pytest.approx(500, abs=64)  # 4 standard deviations


def test_what_cannot_be_learned_from_is_refused() -> None:
    known = fresh(2, 1, 1.0)
    with pytest.raises(NonFiniteError, match="payoff and context must be finite, got nan"):
        updated(known, 0, np.ones(1), float("nan"))
    with pytest.raises(NonFiniteError, match="payoff and context must be finite"):
        updated(known, 0, np.asarray([np.inf]), 0.0)
    with pytest.raises(ShapeError, match="arm must be one of 0 to 1, got 2"):
        updated(known, 2, np.ones(1), 0.0)
    with pytest.raises(ConfigError, match="ridge must be positive, got 0"):
        fresh(2, 1, 0)
