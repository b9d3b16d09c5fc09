from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.bandits.exp3 import draw, probabilities, updated
from paretune.core.errors import NonFiniteError, ShapeError

GAMMA = 0.07
log_weights = st.lists(st.floats(-50, 50), min_size=1, max_size=8).map(np.asarray)
explorations = st.floats(0.01, 1)


def test_the_first_paid_pull_of_three_multiplies_the_weight_by_1_0725() -> None:
    # p = 1/3 at equal weights, whatever gamma: omega <- 1 * exp(.07 * 1 / (3 * 1/3)) = exp(.07) = 1.0725
    after = updated(np.zeros(3), 1, 1.0, GAMMA)
    assert np.exp(after).round(4).tolist() == [1.0, 1.0725, 1.0]


def test_an_update_is_that_of_plain_weights() -> None:
    # omega = (1, 2, 5): p_0 = .93 * 1/8 + .07/3 = .139583; omega_0 <- exp(.07 * -.4 / (3 * .139583)) = .935321
    omega = np.asarray([1.0, 2.0, 5.0])
    assert probabilities(np.log(omega), GAMMA)[0] == pytest.approx(0.139583, abs=5e-7)
    after = np.exp(updated(np.log(omega), 0, -0.4, GAMMA))
    np.testing.assert_allclose(after, [0.935321, 2.0, 5.0], rtol=1e-6)  # as many digits as were worked out


def test_learning_may_be_faster_than_exploring() -> None:
    # exp(.5 * .6 / (2 * 1/2)): the chances are those of gamma, the step that of eta
    assert updated(np.zeros(2), 0, 0.6, GAMMA, learning_rate=0.5)[0] == pytest.approx(0.3)


@given(log_weights, explorations)
def test_no_chance_falls_below_its_share_of_exploration(logs: np.ndarray, gamma: float) -> None:
    chances = probabilities(logs, gamma)
    assert chances.sum() == pytest.approx(1)
    assert (chances >= gamma / len(logs) - 1e-15).all()  # a last bit of fp64


@given(log_weights, explorations, st.floats(-1e6, 1e6), st.floats(-1, 1))
def test_a_constant_on_all_log_weights_changes_nothing(
    logs: np.ndarray, gamma: float, shift: float, payoff: float
) -> None:
    np.testing.assert_allclose(probabilities(logs + shift, gamma), probabilities(logs, gamma), atol=1e-8)  # of 1e6
    one, other = updated(logs, 0, payoff, gamma), updated(logs + shift, 0, payoff, gamma)
    np.testing.assert_allclose(other - shift, one, atol=1e-6)


@given(log_weights, explorations, st.integers(0, 7), st.floats(-2, 2))
def test_only_the_arm_that_was_drawn_moves_and_with_the_sign_of_its_payoff(
    logs: np.ndarray, gamma: float, arm: int, payoff: float
) -> None:
    arm %= len(logs)
    before = logs.copy()
    step = updated(logs, arm, payoff, gamma) - logs
    assert logs.tolist() == before.tolist()
    assert not np.delete(step, arm).any()
    assert step[arm] == pytest.approx(gamma * payoff / (len(logs) * probabilities(logs, gamma)[arm]), abs=1e-12)


def test_a_million_pulls_do_not_overflow() -> None:
    """The weights themselves would be beyond the largest number, exp(709), after some six thousand of these pulls."""
    logs, gamma = np.zeros(3), 0.3
    for _ in range(1000):
        logs = updated(logs, 0, 1.0, gamma)
    # by now p_0 = (1 - gamma) + gamma / 3 = .8 to the last bit, so every pull adds .3 / (3 * .8) = .125
    step = updated(logs, 0, 1.0, gamma) - logs
    np.testing.assert_allclose(step, [0.125, 0, 0], atol=1e-12)
    logs = updated(logs + (10**6 - 1001) * step, 0, 1.0, gamma)
    assert logs[0] > 1.2e5
    assert probabilities(logs, gamma).round(12).tolist() == [0.8, 0.1, 0.1]


def test_arms_are_drawn_as_often_as_their_chances_say() -> None:
    generator = np.random.default_rng(0)
    chances = np.asarray([0.5, 0.0, 0.2, 0.3])
    counts = np.bincount([draw(chances, generator) for _ in range(4000)], minlength=4) / 4000
    assert counts[1] == 0
    np.testing.assert_allclose(counts, chances, atol=0.032)  # 4 standard errors of a half over 4000 draws


@given(log_weights, explorations, st.integers(0, 10**6))
def test_one_arm_is_drawn_by_one_uniform_number(logs: np.ndarray, gamma: float, seed: int) -> None:
    chances = probabilities(logs, gamma)
    used, beside = np.random.default_rng(seed), np.random.default_rng(seed)
    arm, number = draw(chances, used), beside.random()
    assert chances[:arm].sum() - 1e-12 <= number <= chances[: arm + 1].sum() + 1e-12
    assert used.random() == beside.random()


@pytest.mark.parametrize("payoff", [float("nan"), float("inf")])
def test_a_payoff_that_is_no_number_is_refused(payoff: float) -> None:
    with pytest.raises(NonFiniteError, match="payoff must be finite, got"):
        updated(np.zeros(2), 0, payoff, GAMMA)


@pytest.mark.parametrize("arm", [-1, 2])
def test_an_arm_that_is_not_there_is_refused(arm: int) -> None:
    with pytest.raises(ShapeError, match=f"arm must be one of 0 to 1, got {arm}"):
        updated(np.zeros(2), arm, 1.0, GAMMA)
