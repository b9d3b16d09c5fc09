from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.core.errors import ConfigError
from paretune.methods.single_policy.q_weighting import GridWalk, QWeightingSettings, nearest_point
from paretune.rl.weighting import Seen


def walk(preference: Any = (0.5, 0.5), **settings: Any) -> GridWalk:
    count = len(preference)
    return GridWalk(np.asarray(preference), vars(QWeightingSettings(**settings)), np.asarray([[0.0, 1.0]] * count))


def seen(update: int, scores: Any, generator: Any = None) -> Seen:
    rewards = np.asarray([scores], dtype=np.float64)
    count = rewards.shape[1]
    return Seen(
        update,
        np.full(count, 1 / count),
        np.zeros(count),
        0.0,
        None,
        rewards,
        generator or np.random.default_rng(update),
    )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20).filter(lambda row: sum(row) > 0.1), st.integers(1, 12))
def test_the_nearest_point_is_on_the_grid_and_less_than_a_division_away(row: list[float], divisions: int) -> None:
    preference = np.asarray(row) / sum(row)
    point = nearest_point(preference, divisions)
    assert point.sum() == divisions
    assert (np.abs(point - preference * divisions) < 1).all()
    assert nearest_point(point / divisions, divisions).tolist() == point.tolist()


def test_a_step_goes_to_a_neighbour_or_nowhere_and_never_off_the_grid() -> None:
    made, before = walk((0.5, 0.3, 0.2), epsilon=1.0, divisions=4), None
    for update in range(300):
        weights = made.weigh(seen(update, [0.5, 0.5, 0.5])) * 4
        np.testing.assert_allclose(weights, weights.round(), atol=1e-12)
        assert weights.min() >= 0
        if before is not None:
            assert np.abs(weights - before).sum() == pytest.approx(0) or np.abs(weights - before).sum() == 2
        before = weights


def test_only_the_state_that_was_left_learns_and_from_the_scaled_gain() -> None:
    made = walk(history=1)
    for update, level in enumerate((0.0, 0.1, 0.4)):
        made.weigh(seen(update, [level, level]))
    assert not np.any(list(made.values.values()))  # two gains, .1 and .3: nothing to compare the first ones with
    state, action = made.left or ["", 0]
    made.weigh(seen(3, [0.9, 0.9]))  # a gain of .5, above the quantiles: .5 * (1/2 + .5 * 0 - 0)
    assert made.values[state][action] == pytest.approx(0.25)
    assert np.abs(list(made.values.values())).sum() == pytest.approx(0.25)


def test_what_may_follow_is_discounted() -> None:
    """A gain of .5 pays 1/2; the best move from the next point, .4, counts half: .5 * (1/2 + .5 * .4 - 0) = .35."""
    made = walk(history=1, epsilon=0.0)
    for update, level in enumerate((0.0, 0.1, 0.4)):
        made.weigh(seen(update, [level, level]))
    made.place, made.left = np.asarray([10, 0]), ["9,1;0", 2]
    made.values = {"10,0;0": [0.2, 0.4, 9.0]}  # the last would take from nothing, so nobody can make it
    made.weigh(seen(3, [0.9, 0.9]))
    assert made.values["9,1;0"] == pytest.approx([0, 0, 0.35])
    assert made.values["10,0;0"] == [0.2, 0.4, 9.0]


def test_progress_is_part_of_the_state_if_asked_for() -> None:
    made = walk(progress_bins=2, epsilon=0.0)
    made.weigh(seen(0, [0.2, 0.2]))
    assert (made.left or [""])[0] == "5,5;0"
    made = walk(progress_bins=2, epsilon=0.0)
    made.weigh(seen(0, [0.8, 0.6]))
    assert (made.left or [""])[0] == "5,5;1"


def test_progress_that_is_not_known_is_a_state_of_its_own() -> None:
    """A score that nobody could make is not the lowest one; with one bin there is nothing to know."""
    for scores in ([0.2, np.nan], [np.nan, np.nan]):
        made = walk(progress_bins=2, epsilon=0.0)
        made.weigh(seen(0, scores))
        assert (made.left or [""])[0] == "5,5;unknown"
        made = walk(epsilon=0.0)
        made.weigh(seen(0, scores))
        assert (made.left or [""])[0] == "5,5;0"
    made = walk((0.5, 0.5, 0.0), progress_bins=2, epsilon=0.0)
    made.weigh(seen(0, [0.8, 0.6, np.nan]))
    assert (made.left or [""])[0] == "5,5;1"  # what is not wanted may be missing


def final_weight(run: int, feedback: str) -> float:
    """Return the mean weight of the first objective where the gain is that weight less .5, noise .05."""
    made, generator, found = walk(history=1, feedback=feedback, divisions=4), np.random.default_rng(run), []
    weight = 0.5
    for update in range(400):
        made.pulls.scores = [[0.5, 0.5]]
        level = 0.5 + weight - 0.5 + 0.05 * generator.normal()
        weight = float(made.weigh(seen(update, [level, level], generator))[0])
        found.append(weight)
    return float(np.mean(found[200:]))


def test_it_walks_to_where_gains_are_and_not_where_feedback_is_shuffled() -> None:
    assert np.mean([final_weight(run, "measured") for run in range(5)]) > 0.8
    assert np.mean([final_weight(run, "shuffled") for run in range(5)]) < 0.72


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"divisions": 0}, "divisions and progress_bins must be at least 1, got 0 and 1"),
        ({"epsilon": 1.1}, "epsilon must be from 0 to 1, .* got 1.1, 0.5 and 0.5"),
        ({"discount": 1.0}, "discount from 0 to below 1, got 0.1, 0.5 and 1.0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        QWeightingSettings(**settings)
