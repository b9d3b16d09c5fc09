from __future__ import annotations

import numpy as np
import pytest

from paretune.elicitation.answering import REPLIES, SLIPS, chance_of_a, votes


def test_a_gap_of_one_noise_is_noticed_by_73_and_of_three_by_95_of_100() -> None:
    # logistic: 1 / (1 + exp(-1)) = .7311 and 1 / (1 + exp(-3)) = .9526; two slips in 100 fall on both alike
    expected = (1 - SLIPS) * np.array([0.7311, 0.9526]) + SLIPS / 2
    assert chance_of_a(np.array([0.2, 0.6]), 0.2) == pytest.approx(expected, abs=1e-4)


def test_chances_of_both_options_sum_to_one_and_no_gap_is_certain() -> None:
    gaps = np.array([0.0, 1e-9, 0.3, 1e6])
    with np.errstate(all="raise"):
        chance, other = chance_of_a(gaps, 1e-3), chance_of_a(-gaps, 1e-3)
    assert chance + other == pytest.approx(np.ones(4), abs=1e-12)
    assert chance.max() == pytest.approx(1 - SLIPS / 2)


def test_votes_turn_replies_so_that_each_is_for_a_difference() -> None:
    differences = np.array([[0.1, -0.2], [0.3, 0.4], [0.5, -0.6]])
    cast, shares = votes(differences, ["a", "b", "="])
    assert cast == pytest.approx(np.array([[0.1, -0.2], [-0.3, -0.4], [0.5, -0.6], [-0.5, 0.6]]))
    assert shares.tolist() == [1.0, 1.0, 0.5, 0.5]
    nothing = votes(np.zeros((0, 2)), [])
    assert (nothing[0].shape, nothing[1].shape) == ((0, 2), (0,))


def test_no_preference_is_likeliest_where_both_are_worth_the_same() -> None:
    def likelihood(gap: float) -> float:
        cast, shares = votes(np.array([[gap, 0.0]]), ["="])
        return float(np.log(chance_of_a(cast[:, 0], 0.1)) @ shares)

    assert likelihood(0.0) == pytest.approx(np.log(0.5))  # as likely as either option, so silence is no evidence
    assert likelihood(0.0) > likelihood(0.05) == likelihood(-0.05) > likelihood(0.2)
    assert set(REPLIES) == {"a", "b", "="}
