from __future__ import annotations

import numpy as np
import pytest

from paretune.bandits.payoffs import fed_back, scaled
from paretune.core.errors import UnknownNameError


@pytest.mark.parametrize("payoff", [-1.0, 0.2, 0.5, 0.8, 7.0])
def test_payoffs_are_scaled_between_quantiles(payoff: float) -> None:
    # of 0, .1, ..., 1 the quantiles are .2 and .8
    past = [number / 10 for number in range(11)]
    assert scaled(payoff, past) == pytest.approx(min(max((payoff - 0.2) / 0.6, 0), 1))
    assert scaled(payoff, [0.3] * 5) == scaled(payoff, [0.3]) == scaled(payoff, []) == 0.5


def test_measured_feedback_is_the_payoff_and_draws_nothing() -> None:
    generator, beside = np.random.default_rng(0), np.random.default_rng(0)
    assert fed_back(0.7, [0.1, 0.2], "measured", generator) == 0.7
    assert generator.random() == beside.random()


def test_shuffled_feedback_is_one_of_the_past_with_equal_chances_and_never_the_payoff() -> None:
    generator = np.random.default_rng(0)
    told = [fed_back(9.0, [1.0, 2.0, 3.0], "shuffled", generator) for _ in range(3000)]
    assert set(told) == {1.0, 2.0, 3.0}
    assert told.count(1.0) / 3000 == pytest.approx(1 / 3, abs=0.035)  # 4 standard errors
    assert fed_back(9.0, [], "shuffled", generator) is None


def test_a_feedback_that_is_misspelt_is_refused_and_not_shuffled() -> None:
    with pytest.raises(UnknownNameError, match=r"feedback must be one of measured, shuffled, got 'mesured'\. Did you"):
        fed_back(0.5, [0.1], "mesured", np.random.default_rng(0))
