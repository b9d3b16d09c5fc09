from __future__ import annotations

import itertools

import numpy as np
import pytest

from paretune.attribution.shapley import (
    all_coalitions,
    coalitions_of,
    estimated_shapley,
    joining_orders,
    shapley_values,
)
from paretune.core.errors import ConfigError, ShapeError


def test_values_of_the_glove_game() -> None:
    """Experts 0 and 1 hold a left glove each, 2 the right one; a pair is worth 1: known values 1/6, 1/6, 2/3."""
    there = all_coalitions(3)
    values = (there[:, 2] & (there[:, 0] | there[:, 1])).astype(float)
    np.testing.assert_allclose(shapley_values(values), [1 / 6, 1 / 6, 2 / 3])


@pytest.mark.parametrize("experts", range(1, 7))
def test_values_are_means_over_all_orders_and_add_up(experts: int) -> None:
    values = np.random.default_rng(experts).normal(size=(2**experts, 3, 2))
    found = shapley_values(values)
    np.testing.assert_allclose(found.sum(axis=0), values[-1] - values[0])
    orders = np.array(list(itertools.permutations(range(experts))))
    means = np.zeros((experts, 3, 2))
    for order in orders:
        there = 0
        for expert in order:
            means[expert] += (values[there | 1 << expert] - values[there]) / len(orders)
            there |= 1 << int(expert)
    np.testing.assert_allclose(found, means, atol=1e-12)


def test_an_expert_that_adds_nothing_has_none_and_equals_have_equals() -> None:
    there = all_coalitions(4).astype(float)
    values = there[:, 0] * there[:, 1] * 2 + there[:, 2]  # 0 and 1 only together, 3 never
    np.testing.assert_allclose(shapley_values(values), [1, 1, 1, 0], atol=1e-12)


def test_estimates_add_up_and_come_within_their_errors() -> None:
    generator = np.random.default_rng(0)
    experts, table = 7, np.random.default_rng(1).normal(size=(2**7, 2))
    exact = shapley_values(table)
    misses = []
    for _ in range(40):
        orders = joining_orders(experts, 20, generator)
        coalitions = coalitions_of(orders)
        values = table[coalitions @ (1 << np.arange(experts))]
        found, errors = estimated_shapley(orders, coalitions, values)
        np.testing.assert_allclose(found.sum(axis=0), table[-1] - table[0], atol=1e-12)
        misses.append((found - exact) / errors)
    # 560 ratios of a mean of 10 pairs to its error: Student's t with 9 degrees of freedom, sd 1.13
    assert 0.95 < np.std(misses) < 1.35
    assert abs(np.mean(misses)) < 0.2


def test_of_scores_that_add_up_every_order_says_the_same() -> None:
    orders = joining_orders(9, 4, np.random.default_rng(0))
    coalitions = coalitions_of(orders)
    assert coalitions.sum(axis=1).min() == 0
    assert coalitions.sum(axis=1).max() == 9
    shares = np.arange(9.0)
    found, errors = estimated_shapley(orders, coalitions, coalitions @ shares)
    np.testing.assert_allclose(found, shares, atol=1e-12)
    np.testing.assert_allclose(errors, 0, atol=1e-12)


def test_every_second_order_is_the_reverse_of_the_one_before() -> None:
    orders = joining_orders(5, 6, np.random.default_rng(0))
    assert (orders[1::2] == orders[::2, ::-1]).all()
    assert (np.sort(orders, axis=1) == np.arange(5)).all()


def test_what_cannot_be_shared_out_is_refused() -> None:
    with pytest.raises(ConfigError, match="experts must be 1 to 6 for all their coalitions, got 7"):
        all_coalitions(7)
    for values in (np.zeros(6), np.zeros(1)):
        with pytest.raises(ShapeError, match=r"values must be of all 2\^E coalitions"):
            shapley_values(values)
    for count in (2, 5):
        with pytest.raises(ConfigError, match=f"count of orders must be even and at least 4, got {count}"):
            joining_orders(3, count, np.random.default_rng(0))
    orders = joining_orders(3, 4, np.random.default_rng(0))
    with pytest.raises(ShapeError, match="values must be of every coalition of the orders, got one without"):
        estimated_shapley(orders, all_coalitions(3)[:-1], np.zeros(7))
