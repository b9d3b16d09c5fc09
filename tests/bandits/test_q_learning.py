from __future__ import annotations

import numpy as np
import pytest

from paretune.bandits.q_learning import epsilon_greedy, updated
from paretune.core.errors import NonFiniteError, ShapeError

ALL = np.ones(3, dtype=np.bool_)


def test_a_step_moves_one_value_towards_what_it_was_paid_and_what_follows() -> None:
    # 1 + .5 * (2 + .9 * 4 - 1) = 3.3
    before = np.asarray([0.0, 1.0, 5.0])
    assert updated(before, 1, 2.0, 4.0, 0.5, 0.9).tolist() == pytest.approx([0.0, 3.3, 5.0])
    assert before.tolist() == [0.0, 1.0, 5.0]


def test_a_small_decision_process_is_solved() -> None:
    """Four states in a row; left, stay, right; staying in the last pays 1, in the first .3, all else nothing.

    With a discount of .9 staying in the last is worth 1 / (1 - .9) = 10, so the states before are worth 9, 8.1 and
    7.29, which exceeds the 3 of staying in the first: go right everywhere.
    """
    generator, values, state = np.random.default_rng(0), np.zeros((4, 3)), 0
    allowed = np.asarray([[0, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 0]], dtype=np.bool_)
    for _ in range(20000):
        action = epsilon_greedy(values[state], allowed[state], 0.6, generator)
        reached = state + action - 1
        paid = {3: 1.0, 0: 0.3}.get(state, 0.0) if action == 1 else 0.0
        values[state] = updated(values[state], action, paid, values[reached][allowed[reached]].max(), 0.2, 0.9)
        state = reached
    best = np.where(allowed, values, -np.inf)
    assert best.argmax(axis=1).tolist() == [2, 2, 2, 1]
    np.testing.assert_allclose(best.max(axis=1), [7.29, 8.1, 9.0, 10.0], rtol=0.01)  # what 20,000 steps leave


def test_an_action_is_the_best_one_but_for_epsilon_and_always_an_allowed_one() -> None:
    generator, values = np.random.default_rng(0), np.asarray([5.0, 1.0, 2.0])
    allowed = np.asarray([False, True, True])
    drawn = [epsilon_greedy(values, allowed, 0.4, generator) for _ in range(2000)]
    assert drawn.count(0) == 0
    assert drawn.count(1) / 2000 == pytest.approx(0.2, abs=0.036)  # half of epsilon, 4 standard errors
    ties = [epsilon_greedy(np.zeros(3), ALL, 0.0, generator) for _ in range(3000)]
    assert np.bincount(ties).tolist() == pytest.approx([1000] * 3, abs=110)


def test_what_cannot_be_learned_from_or_done_is_refused() -> None:
    with pytest.raises(NonFiniteError, match="reward must be finite, got nan"):
        updated(np.zeros(2), 0, float("nan"), 0.0, 0.5, 0.9)
    with pytest.raises(ShapeError, match="allowed must have an action, got none"):
        epsilon_greedy(np.zeros(2), np.zeros(2, dtype=np.bool_), 0.1, np.random.default_rng(0))
