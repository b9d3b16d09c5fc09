from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paretune.bandits.linucb import updated
from paretune.core.errors import BudgetError, ConfigError, UnknownNameError
from paretune.core.preferences import das_dennis
from paretune.core.task import Task
from paretune.methods.single_policy.contextual_dynaopt import (
    ContextualBandit,
    ContextualDynaOpt,
    ContextualDynaOptSettings,
)
from paretune.rl.weighting import Seen

CENTRE = np.asarray([0.5, 0.5])


def bandit(**settings: Any) -> ContextualBandit:
    return ContextualBandit(CENTRE, vars(ContextualDynaOptSettings(**settings)), np.asarray([[0.0, 1.0]] * 2))


def seen(update: int, scores: Any, generator: Any = None) -> Seen:
    rewards = np.asarray(scores, dtype=np.float64)
    return Seen(update, CENTRE, np.zeros(2), 0.0, None, rewards, generator or np.random.default_rng(update))


def test_the_context_is_weights_last_gains_among_past_ones_and_a_constant() -> None:
    made = bandit(history=1)
    for update, score in enumerate(([0.0, 0.5], [0.1, 0.5], [0.4, 0.4], [0.6, 0.5])):
        before = made.factors.weights
        made.weigh(seen(update, [score]))
        assert made.pulled is not None
        np.testing.assert_allclose(made.pulled[1][:2], before)
    # gains of the first: .1, .3, then .2, the middle of them; of the second: 0, -.1, then .1, above the 80 % quantile
    np.testing.assert_allclose(made.pulled[1][2:], [0.0, 0.5, 1.0], atol=1e-9)


@pytest.mark.parametrize(("optimism", "known"), [(0.5, False), (0.05, True), (0.0, True)])
def test_an_arm_that_was_never_pulled_may_pay_more_than_one_that_pays(optimism: float, known: bool) -> None:
    """The first arm pays .1 for sure; the others are worth 0 + alpha sqrt(c . c), c = (.5, .5, 0, 0, 1): 1.22 alpha."""
    made, context = bandit(optimism=optimism), np.asarray([0.5, 0.5, 0.0, 0.0, 1.0])
    for _ in range(10_000):
        made.known = updated(made.known, 0, context, 0.1)
    made.weigh(seen(0, [[0.5, 0.5]]))
    assert made.pulled is not None
    np.testing.assert_allclose(made.pulled[1], context)
    assert (made.pulled[0] == 0) == known


def learned(paid: str, run: int, feedback: str = "measured", pulls: int = 60) -> np.ndarray:
    """Return weights where raising the second objective gains .06 for it, and raising the first nothing for anybody."""
    made, generator = bandit(paid=paid, history=1, feedback=feedback), np.random.default_rng(run)
    found, scores = [], np.asarray([0.5, 0.5])
    for update in range(pulls):
        now = scores + 0.02 * generator.normal(size=2)
        if made.pulled is not None and made.pulled[0] == 1:
            now[1] += 0.06
        made.pulls.scores = [[0.5, 0.5]]  # every pull starts from the same level
        found.append(made.weigh(seen(update, [now], generator)))
    return np.mean(found[pulls // 2 :], axis=0)


def test_paid_for_all_it_raises_what_pays_and_paid_for_the_first_it_cannot_see_it() -> None:
    """The published defect: whatever the second objective gains, a payoff of the first alone says nothing of it."""
    hows = (("all", "measured"), ("first", "measured"), ("all", "shuffled"))
    paid_for_all, paid_for_first, shuffled = (
        np.mean([learned(paid, run, feedback)[1] for run in range(12)]) for paid, feedback in hows
    )
    assert paid_for_all > 0.65
    assert abs(paid_for_first - 0.5) < 0.1
    assert abs(shuffled - 0.5) < 0.1  # 4 standard errors of 12 runs


def test_a_payoff_without_a_score_that_counts_is_left_out_but_something_is_pulled() -> None:
    made = bandit()
    made.weigh(seen(0, [[0.5, 0.5]]))
    made.weigh(seen(4, [[0.7, np.nan]]))
    assert made.pulls.payoffs == []
    assert not made.known.sums.any()
    assert made.pulled is not None


def test_what_could_only_be_measured_is_refused(task: Task) -> None:
    method = ContextualDynaOpt(ContextualDynaOptSettings(measured_each=64, completions_each=64))
    with pytest.raises(BudgetError, match="each of 3 policies a measurement and a group, 72 completions, got 200"):
        method.stages(task, das_dennis(2, 2), 200, 0)
    assert len(method.stages(task, das_dennis(2, 2), 216, 0)) == 3


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"paid": "second"}, UnknownNameError, "paid must be one of all, first, got 'second'"),
        ({"ridge": 0.0}, ConfigError, "optimism must not be negative and ridge must be positive, got 0.5 and 0.0"),
        ({"fading": 1.0}, ConfigError, "fading must be at least 0 and below 1, got 1.0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ContextualDynaOptSettings(**settings)
