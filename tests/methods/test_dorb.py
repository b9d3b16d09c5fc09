from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paretune.bandits.exp3 import probabilities
from paretune.core.errors import ConfigError, UnknownNameError
from paretune.methods.single_policy.dorb import DORBSettings, OneAtATime
from paretune.rl.weighting import Seen

CENTRE = np.asarray([0.5, 0.5])


def bandit(**settings: Any) -> OneAtATime:
    return OneAtATime(CENTRE, vars(DORBSettings(**settings)), np.asarray([[0.0, 1.0]] * 2))


def seen(update: int, scores: Any = None, generator: Any = None) -> Seen:
    rewards = None if scores is None else np.asarray([scores], dtype=np.float64)
    return Seen(update, CENTRE, np.zeros(2), 0.0, None, rewards, generator or np.random.default_rng(update))


def test_one_objective_has_all_the_weight_until_the_next_pull() -> None:
    made = bandit()
    first = made.weigh(seen(0, [0.2, 0.4]))
    assert sorted(first.tolist()) == [0, 1]
    assert made.measured(3) == 0
    assert all(made.weigh(seen(update)).tolist() == first.tolist() for update in (1, 2, 3))


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_the_payoff_is_the_level_among_past_levels(rate: float) -> None:
    made = bandit(arm_learning_rate=rate)
    for update, level in enumerate((0.2, 0.4, 0.6, 0.5)):
        before, pulled = made.logs.copy(), made.pulled
        made.weigh(seen(update, [level, level]))
    # past levels .2, .4, .6: quantiles .28 and .52, and .5 is 22/24 of the way
    assert pulled is not None
    chance = probabilities(before[0], 0.07)[pulled[1]]
    assert made.logs[0, pulled[1]] - before[0, pulled[1]] == pytest.approx(rate * 22 / 24 / (2 * chance))
    assert made.levels == [pytest.approx([0.2, 0.4, 0.6, 0.5])]


def test_in_the_hierarchy_the_objective_that_lags_is_in_charge_and_its_bandit_alone_is_paid() -> None:
    made = bandit(variant="hierarchical")
    for update, scores in enumerate(([0.2, 0.2], [0.4, 0.4])):
        made.weigh(seen(update, scores))
    made.weigh(seen(2, [0.2, 0.6]))  # the first is back at its lowest, the second at its highest
    assert made.pulled is not None
    assert made.pulled[0] == 0
    other = made.logs[1].copy()
    made.weigh(seen(3, [0.5, 0.3]))
    assert made.logs[1].tolist() == other.tolist()
    assert made.pulled[0] == 1


def share_of_the_best(run: int, feedback: str) -> float:
    """Return the share of pulls of the arm after which levels are .1 higher, noise .03, in the last 40 of 80."""
    made, generator, pulled = bandit(feedback=feedback), np.random.default_rng(run), []
    for update in range(80):
        level = 0.5 + 0.03 * generator.normal() + 0.1 * bool(made.pulled and made.pulled[1] == 0)
        made.weigh(seen(update, [level, level], generator))
        pulled.append((made.pulled or [0, 1])[1] == 0)
    return float(np.mean(pulled[40:]))


def test_what_pays_is_found_and_not_where_feedback_is_shuffled() -> None:
    assert np.mean([share_of_the_best(run, "measured") for run in range(20)]) > 0.8
    assert np.mean([share_of_the_best(run, "shuffled") for run in range(20)]) < 0.7


def test_a_level_that_is_not_known_pays_nothing() -> None:
    made = bandit()
    for update in range(4):
        made.weigh(seen(update, [0.3, np.nan]))
    assert not made.logs.any()
    assert made.levels == [[]]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"variant": "SM"}, UnknownNameError, "variant must be one of hierarchical, single, got 'SM'"),
        ({"gamma": 0.0}, ConfigError, "gamma must be above 0 and at most 1, got 0.0"),
        ({"arm_learning_rate": 0.0}, ConfigError, "arm_learning_rate must be positive, got 0.0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DORBSettings(**settings)
