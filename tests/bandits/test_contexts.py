from __future__ import annotations

import numpy as np
import pytest

from paretune.bandits.contexts import (
    MOST_FEATURES,
    check_context,
    compressed,
    compression,
    context_rows,
    context_size,
)
from paretune.core.errors import ConfigError, ShapeError


def test_states_become_few_numbers_of_mean_0_and_variance_1() -> None:
    generator = np.random.default_rng(0)
    states = generator.normal(size=(50, 6)) @ np.diag([5.0, 3, 1, 0.5, 0.1, 0]) + 2
    found = compressed(compression(states, 4), states)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(found.T @ found / 50, np.eye(4), atol=1e-10)
    # along the first axis: what varies most, the first column nearly alone
    assert abs(np.corrcoef(found[:, 0], states[:, 0])[0, 1]) > 0.95


def test_directions_in_which_nothing_differs_say_nothing() -> None:
    # two prompts differ along one direction: numbers 1 and -1, and nothing for the second feature
    found = compressed(compression(np.asarray([[0.0, 1.0], [0.0, 3.0]]), 2), np.asarray([[5.0, 1.0], [0.0, 3.0]]))
    np.testing.assert_allclose(found, [[-1, 0], [1, 0]])
    assert not compressed(compression(np.zeros((3, 4)), 2), np.zeros((5, 4))).any()  # what a blind gate sees


def test_contexts_hold_prompt_preference_and_their_products() -> None:
    # K = 3: deviation of a weight sqrt(2 / (9 * 4)) = .2357; (.5 - 1/3) / .2357 = .7071, (.1 - 1/3) / .2357 = -.9899
    rows = context_rows(np.asarray([[2.0, 7.0]]), np.asarray([[0.5, 0.1, 0.4]]), 1)
    np.testing.assert_allclose(rows, [[1, 2, 7, 0.7071, -0.9899, 1.4142, -1.9799]], atol=1e-4)
    drawn = context_rows(np.zeros((4000, 1)), np.random.default_rng(0).dirichlet(np.ones(3), 4000), 0)[:, 2:]
    np.testing.assert_allclose(drawn.std(axis=0), 1, atol=0.05)
    for objectives in (1, 2, 4):
        for products in (0, 2, 5):
            made = context_rows(np.ones((3, 5)), np.full((3, objectives), 1 / objectives), products)
            assert made.shape == (3, context_size(5, objectives, products))
    assert context_rows(np.ones((0, 5)), np.ones((0, 2)), 2).shape == (0, context_size(5, 2, 2))
    with pytest.raises(ShapeError, match="prompts must have a component for each of 6 products, got 5"):
        context_rows(np.ones((3, 5)), np.full((3, 2), 0.5), 6)


def test_features_out_of_range_are_refused() -> None:
    for features in (0, MOST_FEATURES + 1):
        with pytest.raises(ConfigError, match="features must be between 1 and 32"):
            compression(np.ones((3, 40)), features)
    with pytest.raises(ShapeError, match="at least one prompt"):
        compression(np.ones((0, 4)), 2)
    check_context(1, 0)
    check_context(MOST_FEATURES, MOST_FEATURES)
    for features, products, message in (
        (0, 0, "features must be between 1 and 32, got 0"),
        (33, 0, "features must be between 1 and 32, got 33"),
        (3, -1, "products must not be negative, got -1"),
        (3, 4, r"products must be at most the number of features \(3\), got 4. Write products: 3"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_context(features, products)
