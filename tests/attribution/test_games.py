"""What experts add to a policy: which coalitions are scored, and the shares of a game known on paper."""

from __future__ import annotations

import numpy as np
import pytest

from paretune.attribution.games import Game

PLAYERS = np.array([1, 3])  # of five experts
VALUES = {(0, 0): 1.0, (1, 0): 3.0, (0, 1): 2.0, (1, 1): 6.0}


def game(players: int, most: int = 80) -> Game:
    return Game.of(np.arange(players), most, np.random.default_rng(0))


def test_a_game_of_two_is_shared_out_as_on_paper() -> None:
    """The first adds 2 alone and 4 behind the second, the second 1 and 3: 3 and 2; taken away they cost 4 and 3."""
    made = Game.of(PLAYERS, 80, np.random.default_rng(0))
    by_coalition = np.array([VALUES[int(row[0]), int(row[1])] for row in made.coalitions])
    values = np.stack([by_coalition, 2 * by_coalition], axis=1)[..., None]  # two prompts, one column: mean 1.5 times
    found = made.shared_out(values)
    assert (found.base, found.policy) == (pytest.approx(1.5), pytest.approx(9))
    np.testing.assert_allclose(found.shapley[:, 0], [4.5, 3])
    np.testing.assert_allclose(found.removal[:, 0], [6, 4.5])
    np.testing.assert_allclose(found.standard_error[:, 0], [1.5, 1])  # of 3 and 6, of 2 and 4, over two prompts
    assert found.order_error is None
    assert found.prompts.tolist() == [2]


def test_a_prompt_without_a_score_of_one_coalition_counts_for_none() -> None:
    made = game(2)
    values = np.repeat(np.arange(4.0)[:, None], 2, axis=1)[..., None].repeat(2, axis=2)
    values[2, 1, 0] = np.nan
    found = made.shared_out(values)
    assert found.prompts.tolist() == [1, 2]
    assert np.isnan(found.standard_error[:, 0]).all()  # of one prompt
    np.testing.assert_allclose(found.shapley[:, 0], found.shapley[:, 1])
    values[2, :, 0] = np.nan
    assert np.isnan(made.shared_out(values).shapley[:, 0]).all()


def test_coalitions_are_choices_among_all_experts_of_a_policy() -> None:
    within = Game.of(PLAYERS, 80, np.random.default_rng(0)).within(5)
    assert within.astype(int).tolist() == [[0, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 1, 0], [0, 1, 0, 1, 0]]


def test_of_many_experts_orders_are_drawn_as_far_as_there_is_room() -> None:
    made = game(8)
    assert made.orders is not None
    assert len(made.orders) == 10  # two times (80 - 2 - 8) / 14 pairs
    assert len(made.coalitions) <= 80
    gains = np.arange(1.0, 9)  # each adds its own, whoever is there: no order is off
    found = made.shared_out((made.coalitions @ gains)[:, None, None])
    np.testing.assert_allclose(found.shapley[:, 0], gains)
    np.testing.assert_allclose(found.removal[:, 0], gains)
    assert found.order_error is not None
    np.testing.assert_allclose(found.order_error, 0, atol=1e-12)
    assert game(8, most=30).coalitions.shape == (0, 8)  # two pairs of orders take 38
    assert game(0).coalitions.shape == (0, 0)
