from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.core.errors import NonFiniteError, PreferenceError, ShapeError
from paretune.core.preferences import das_dennis
from paretune.pareto.controllability import controllability

GRID = das_dennis(3, 2)


def test_pairs_that_follow_less_pairs_that_go_against_over_pairs_that_ask() -> None:
    # first weights .1, .4, .4, .8: five pairs ask. Scores .3, .5, .2, .5: .1-.4 up, .1-.4' down, .1-.8 up,
    # .4-.8 equal, .4'-.8 up: (3 - 1) / 5. The second objective's weights and scores are the mirror: scores .3, .5, .2,
    # .5 against .9, .6, .6, .2: up, up (less weight, higher score) are against: (1 - 3) / 5.
    weights = [[0.1, 0.9], [0.4, 0.6], [0.4, 0.6], [0.8, 0.2]]
    scores = [[0.3, 0.3], [0.5, 0.5], [0.2, 0.2], [0.5, 0.5]]
    np.testing.assert_allclose(controllability(weights, scores), [0.4, -0.4])


def test_perfect_control_is_one_although_preferences_of_one_weight_score_differently() -> None:
    scores = GRID + 0.01 * np.arange(len(GRID))[:, None]
    assert controllability(GRID, scores).tolist() == [1.0, 1.0, 1.0]
    assert controllability(GRID, -scores).tolist() == [-1.0, -1.0, -1.0]


def test_a_policy_that_ignores_the_preference_has_none() -> None:
    assert controllability(GRID, np.full((6, 3), 0.5)).tolist() == [0.0, 0.0, 0.0]
    last_bits = np.full((6, 3), 0.5) + 1e-13 * GRID
    assert controllability(GRID, last_bits).tolist() == [0.0, 0.0, 0.0]


def test_an_objective_whose_weight_never_changes_tells_nothing() -> None:
    third = 1 / 3
    weights = [[third, 0.5, 1 - third - 0.5], [1 - 2 * third, 0.25, 1 - third - 0.25]]  # thirds differ in last bits
    found = controllability(weights, [[0.1, 0.6, 0.1], [0.2, 0.5, 0.2]])
    assert np.isnan(found[0])
    assert found[1:].tolist() == [1.0, 1.0]
    assert np.isnan(controllability([[0.5, 0.5]], [[0.1, 0.2]])).all()  # a single preference asks for nothing


@given(st.integers(0, 2**32 - 1))
def test_stays_within_its_range_and_turns_with_the_scores(seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=(6, 3)).round(1)
    found = controllability(GRID, scores)
    assert (np.abs(found) <= 1).all()
    np.testing.assert_allclose(controllability(GRID, -scores), -found)
    np.testing.assert_allclose(controllability(GRID, np.exp(scores)), found)  # ranks alone count


def test_refusals() -> None:
    with pytest.raises(ShapeError, match="preferences and scores must have as many rows, got 6 and 1"):
        controllability(GRID, [[1, 2, 3]])
    with pytest.raises(NonFiniteError, match="scores must be finite"):
        controllability(GRID, np.full((6, 3), np.nan))
    with pytest.raises(PreferenceError, match="one entry per objective"):
        controllability(GRID, np.zeros((6, 2)))
