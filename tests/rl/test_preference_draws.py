"""Preferences that one policy for all is trained for: uniform on the simplex, evenly, or half of them at corners."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from paretune.core.errors import UnknownNameError
from paretune.core.seeds import generator
from paretune.rl.preference_draws import DRAWS, drawn_preferences, on_simplex, regular_points


@given(st.sampled_from(DRAWS), st.integers(1, 4), st.integers(0, 50), st.integers(0, 9), st.integers(1, 12))
def test_draws_lie_on_the_simplex_and_repeat(draw: str, objectives: int, seed: int, update: int, groups: int) -> None:
    drawn = drawn_preferences(draw, objectives, seed, update, groups)
    assert drawn.shape == (groups, objectives)
    assert (drawn >= 0).all()
    assert_allclose(drawn.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_array_equal(drawn, drawn_preferences(draw, objectives, seed, update, groups))
    if objectives > 1 and draw != "corners":  # one prompt has a corner for all seeds
        assert (drawn != drawn_preferences(draw, objectives, seed + 1, update, groups)).any()


def test_uniform_draws_are_those_that_banks_were_always_trained_with() -> None:
    drawn = drawn_preferences("uniform", 3, 5, 7, 4)
    for group in range(4):
        np.testing.assert_array_equal(drawn[group], generator(5, "preference", 7, group).dirichlet(np.ones(3)))
    np.testing.assert_array_equal(drawn[:2], drawn_preferences("uniform", 3, 5, 7, 2))


@pytest.mark.parametrize("groups", [1, 2, 7, 8])
def test_stratified_draws_for_two_objectives_have_one_in_each_interval(groups: int) -> None:
    orders = set()
    for update in range(20):
        shares = drawn_preferences("stratified", 2, 1, update, groups)[:, 0]
        intervals = np.floor(shares * groups).astype(int)
        assert sorted(intervals) == list(range(groups))
        orders.add(tuple(intervals))
    assert len(orders) > 1 or groups == 1  # a prompt is not always asked for the same part


@pytest.mark.parametrize("draw", [pytest.param("uniform", marks=pytest.mark.slow), "stratified"])
@pytest.mark.parametrize("objectives", [2, pytest.param(3, marks=pytest.mark.slow), 4])
def test_each_draw_is_uniform_on_the_simplex(draw: str, objectives: int) -> None:
    drawn = np.stack([drawn_preferences(draw, objectives, 0, update, 8)[3] for update in range(4000)])
    # Dirichlet(1, ..., 1): mean 1 / K, variance (K - 1) / (K^2 (K + 1)), P(w_k > 1/2) = 2^-(K - 1)
    sd = np.sqrt((objectives - 1) / (objectives**2 * (objectives + 1)))
    assert_allclose(drawn.mean(axis=0), 1 / objectives, atol=4 * sd / np.sqrt(4000))  # four standard errors
    assert_allclose(drawn.std(axis=0), sd, rtol=0.06)
    assert_allclose((drawn > 0.5).mean(axis=0), 0.5 ** (objectives - 1), atol=4 * 0.5 / np.sqrt(4000))


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_the_mean_of_a_stratified_update_is_nearer_to_the_centre_than_that_of_a_uniform_one(objectives: int) -> None:
    def spread(draw: str) -> float:
        means = [drawn_preferences(draw, objectives, 0, update, 8).mean(axis=0) for update in range(300)]
        return float(np.square(np.asarray(means) - 1 / objectives).sum())

    # for two objectives the variance of a mean of 8 is 1/8 * 1/12 without and 1/8 * 1/12 * 1/64 with strata
    assert spread("stratified") < spread("uniform") / (20 if objectives == 2 else 2.5)


def test_corner_draws_are_every_other_one_and_corners_take_turns() -> None:
    drawn = np.concatenate([drawn_preferences("corners", 3, 2, update, 4) for update in range(6)])
    at = drawn.max(axis=1) == 1
    assert at.reshape(6, 4).sum(axis=1).tolist() == [2] * 6
    assert drawn[at].sum(axis=0).tolist() == [4, 4, 4]  # 12 corners in turn
    alone = [drawn_preferences("corners", 2, 2, update, 1)[0].max() == 1 for update in range(4)]
    assert alone == [True, False, True, False]
    np.testing.assert_array_equal(drawn[:4][~at[:4]], drawn_preferences("uniform", 3, 2, 0, 4)[~at[:4]])


def test_points_of_the_cube_come_to_lie_on_the_simplex_and_edges_stay_edges() -> None:
    # K = 3: the first part has 1 - (1 - x)^2 = u, so u = 3/4 gives 1/2; of the other half u = 1/2 gives 1/4
    assert_allclose(on_simplex(np.array([[0.75, 0.5]])), [[0.5, 0.25, 0.25]])
    assert on_simplex(np.array([[0.0, 0.0], [1.0, 0.3]])).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert on_simplex(np.zeros((2, 0))).tolist() == [[1], [1]]


def test_steps_of_the_sequence_are_powers_of_the_generalised_golden_ratio() -> None:
    golden = (1 + np.sqrt(5)) / 2  # phi^2 = phi + 1
    assert_allclose(regular_points(3, 1)[:, 0], np.arange(1, 4) / golden % 1)
    plastic = 1.3247179572447460  # phi^3 = phi + 1
    assert_allclose(regular_points(1, 2), [[1 / plastic, 1 / plastic**2]])


def test_an_unknown_draw_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="draw must be one of corners, stratified, uniform, got 'even'"):
        drawn_preferences("even", 2, 0, 0, 8)
