from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.bandits.ridge import (
    COMMON_RIDGE,
    add_to_inverse,
    coefficients,
    fitted,
    fresh,
    noise,
    payoffs,
    predicted,
    residuals,
    updated,
    widths,
)
from paretune.core.errors import ConfigError, NonFiniteError, ShapeError


def test_one_pull_by_hand() -> None:
    # ridge 2, one feature, c = 1, x = (3, 6), arm 0 of two. In common: B = 3 / (1 + 1) = 1.5 and 6 / 2 = 3.
    # Arm 0: A = 2 + 1 = 3, (3 + 2 * 1.5) / 3 = 2 and (6 + 2 * 3) / 3 = 4. Arm 1: A = 2, 2 * 1.5 / 2 = 1.5 and 3.
    known = updated(fresh(2, 1, 2, 2.0), np.asarray([0]), np.ones((1, 1)), np.asarray([[3.0, 6.0]]))
    np.testing.assert_allclose(coefficients(known)[:, 0], [[2, 4], [1.5, 3]])
    np.testing.assert_allclose(widths(known.inverses, np.asarray([[1.0]])), [[np.sqrt(1 / 3), np.sqrt(1 / 2)]])
    # residuals around B are 1.5 and 3, half of x as H = 1 / (1 + 1): noise is x, of the payoff (1, -1) . x it is 3
    np.testing.assert_allclose(noise(residuals(known), np.asarray([[1.0, 0.0], [1.0, -1.0]])), [3, 3])
    assert known.counts.tolist() == [1, 0]
    # of a payoff of (1, -1) at c = 2: means 2 (2 - 4) and 2 (1.5 - 3), widths twice those above, times the noise
    said = payoffs(fitted(known), np.asarray([[2.0]]), np.asarray([[1.0, -1.0]]))
    np.testing.assert_allclose(said.means, [[-4, -3]])
    np.testing.assert_allclose(said.deviations, [[6 * np.sqrt(1 / 3), 6 * np.sqrt(1 / 2)]])
    np.testing.assert_allclose(said.noise, [3])


def test_an_inverse_takes_a_context_in() -> None:
    # A = diag(1, 2), c = (1, 1): A + c c' = [[2, 1], [1, 3]], whose determinant is 5
    inverse = np.diag([1.0, 0.5])
    add_to_inverse(inverse, np.ones(2))
    np.testing.assert_allclose(inverse, np.asarray([[3, -1], [-1, 2]]) / 5)


@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(1, 4), st.floats(0.1, 10))
def test_updates_are_the_direct_inverse(seed: int, features: int, outputs: int, ridge: float) -> None:
    generator = np.random.default_rng(seed)
    contexts, paid = generator.normal(size=(40, features)), generator.normal(size=(40, outputs))
    arms = generator.integers(0, 3, 40)
    known = updated(fresh(4, features, outputs, ridge), arms, contexts, paid)
    one = np.eye(features)
    common = np.linalg.solve(COMMON_RIDGE * one + contexts.T @ contexts, contexts.T @ paid)
    for arm in range(4):  # the last was never pulled
        own = contexts[arms == arm]
        matrix = ridge * one + own.T @ own
        np.testing.assert_allclose(known.inverses[arm], np.linalg.inv(matrix), atol=1e-8)  # 40 rank-one steps in fp64
        wanted = np.linalg.solve(matrix, own.T @ paid[arms == arm] + ridge * common)
        np.testing.assert_allclose(coefficients(known)[arm], wanted, atol=1e-8)
    np.testing.assert_allclose(coefficients(known)[3], common, atol=1e-8)
    weights = generator.normal(size=(5, outputs))
    left = (paid - contexts @ common) @ weights.T
    smoother = contexts @ np.linalg.solve(COMMON_RIDGE * one + contexts.T @ contexts, contexts.T)
    degrees = np.trace((np.eye(40) - smoother) @ (np.eye(40) - smoother))
    np.testing.assert_allclose(noise(residuals(known), weights), np.sqrt((left**2).sum(axis=0) / degrees), atol=1e-6)


@pytest.mark.parametrize(("features", "pulls"), [(14, 8), (14, 16), (14, 64), (66, 64)])
def test_noise_is_neither_fitted_away_nor_made(features: int, pulls: int) -> None:
    """Of standard deviation .2, where contexts say nothing; a mean of squares of what the fit leaves has .04 to .18."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(200):
        contexts, paid = generator.normal(size=(pulls, features)), 0.2 * generator.normal(size=(pulls, 1))
        known = updated(fresh(2, features, 1, 1.0), generator.integers(0, 2, pulls), contexts, paid)
        found.append(float(residuals(known)[0, 0]))
    assert np.sqrt(np.mean(found)) == pytest.approx(0.2, rel=0.1)


def test_pulls_in_parts_teach_what_they_teach_at_once_to_the_last_bit() -> None:
    generator = np.random.default_rng(0)
    arms, contexts, paid = generator.integers(0, 3, 30), generator.normal(size=(30, 4)), generator.normal(size=(30, 2))
    once = updated(fresh(3, 4, 2, 1.0), arms, contexts, paid)
    parts = fresh(3, 4, 2, 1.0)
    for part in (slice(0, 7), slice(7, 7), slice(7, 30)):
        parts = updated(parts, arms[part], contexts[part], paid[part])
    for one, other in zip(once, parts, strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_log_serves_every_preference() -> None:
    """Payoffs of a model of all objectives are those of a model of the one payoff, whatever the weights."""
    generator = np.random.default_rng(1)
    arms, contexts, paid = generator.integers(0, 3, 60), generator.normal(size=(60, 4)), generator.normal(size=(60, 3))
    vector = coefficients(updated(fresh(3, 4, 3, 2.0), arms, contexts, paid))
    for weights in ([0.3, 0.7, -0.1], [1.0, 0.0, -0.1]):
        scalar = coefficients(updated(fresh(3, 4, 1, 2.0), arms, contexts, paid @ np.asarray(weights)[:, None]))
        np.testing.assert_allclose(
            predicted(vector, contexts) @ weights, predicted(scalar, contexts)[:, :, 0], atol=1e-10
        )


def test_what_cannot_be_learned_from_is_refused() -> None:
    with pytest.raises(ConfigError, match="ridge must be positive, got 0"):
        fresh(2, 1, 1, 0)
    known = fresh(2, 1, 1, 1.0)
    with pytest.raises(NonFiniteError, match="outputs must be finite"):
        updated(known, np.asarray([0]), np.ones((1, 1)), np.asarray([[np.nan]]))
    with pytest.raises(ShapeError, match="arms must be of 0 to 1, got 2 to 2"):
        updated(known, np.asarray([2]), np.ones((1, 1)), np.ones((1, 1)))
