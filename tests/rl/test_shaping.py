from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paretune.core.errors import ConfigError, ShapeError
from paretune.methods.single_policy.thresholds import ThresholdShaping
from paretune.rl.shaping import HIGHEST, LOWEST, Product, log_clip, shaped_ranges_of, to_unit
from paretune.rl.slots import Slots

UNIT = np.asarray([[0.0, 1.0]])


def test_a_reward_becomes_the_logarithm_of_its_place_in_the_range() -> None:
    rewards = torch.tensor([[0.25, 5.0], [1.0, -10.0]], dtype=torch.float64)
    # of [0, 1]: ln .25, and 1 is clipped to .9999; of [-10, 10]: 5 is .75 of the way, -10 is clipped to 1e-4
    expected = [[math.log(0.25), math.log(0.75)], [math.log(0.9999), math.log(1e-4)]]
    got = log_clip(rewards, np.asarray([[0.0, 1.0], [-10.0, 10.0]]))
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64))


def test_a_missing_reward_stays_missing_and_leaves_the_others_alone() -> None:
    got = log_clip(torch.tensor([[float("nan"), 0.5]]), [[0, 1], [0, 1]])
    assert got[0, 0].isnan()
    assert float(got[0, 1]) == pytest.approx(math.log(0.5))


@given(st.floats(-2, 3), st.floats(-2, 3))
def test_order_is_kept_and_values_stay_between_the_clips(one: float, other: float) -> None:
    got = log_clip(torch.tensor([[one], [other]], dtype=torch.float64), UNIT).flatten().tolist()
    assert (got[0] <= got[1]) == (min(max(one, LOWEST), HIGHEST) <= min(max(other, LOWEST), HIGHEST))
    assert all(math.log(LOWEST) - 1e-12 <= value <= math.log(HIGHEST) + 1e-12 for value in got)


@given(st.floats(0.01, 100), st.floats(-50, 50), st.floats(0, 1))
def test_the_unit_of_a_reward_does_not_matter(scale: float, shift: float, place: float) -> None:
    there = log_clip(torch.tensor([[place * scale + shift]], dtype=torch.float64), [[shift, shift + scale]])
    here = log_clip(torch.tensor([[place]], dtype=torch.float64), UNIT)
    torch.testing.assert_close(there, here, rtol=0, atol=1e-6)  # cancellation at shift 50, scale .01, slope 1e4


@pytest.mark.parametrize(
    ("rewards", "ranges"), [((2, 2), np.zeros((1, 2))), ((2, 2), np.zeros((2, 3))), ((2,), np.zeros((2, 2)))]
)
def test_an_objective_without_a_range_is_refused(rewards: tuple[int, ...], ranges: np.ndarray) -> None:
    with pytest.raises(ShapeError, match=r"ranges must be \[K, 2\] for rewards \[B, K\], got"):
        log_clip(torch.zeros(rewards), ranges)


WIDE = np.asarray([[0.0, 2.0], [-10.0, 10.0]])
BENT = {"threshold_point": [1.5, 5.0], "beyond": 0.1}


@pytest.mark.parametrize(
    "shaping", [to_unit, log_clip, Product(np.asarray([0.3, 0.7]), {}, WIDE), ThresholdShaping(WIDE[0], BENT, WIDE)]
)
def test_shapings_lead_to_where_they_say(shaping) -> None:
    said = shaped_ranges_of(shaping, 2)
    assert said is not None
    rewards = torch.linspace(0, 1, 101, dtype=torch.float64)[:, None] * torch.tensor([2.0, 20.0]) + torch.tensor(
        [0, -10]
    )
    made = (shaping(rewards, WIDE) if callable(shaping) else shaping.shape(rewards)).numpy()
    assert (made >= said[:, 0] - 1e-12).all()
    assert (made <= said[:, 1] + 1e-12).all()
    assert (np.ptp(made, axis=0) > 0.6 * (said[:, 1] - said[:, 0])).all()  # and not far beyond


def test_slots_know_the_ranges_of_rewards_that_nothing_shapes_and_of_shapings_that_say_them() -> None:
    def silent(rewards: torch.Tensor, ranges: np.ndarray) -> torch.Tensor:
        return rewards

    class Doubled:
        def __init__(self, factor: float) -> None:
            self.shaped_ranges = factor * WIDE

        def shape(self, rewards: torch.Tensor) -> torch.Tensor:
            return rewards

    np.testing.assert_array_equal(Slots().shaped_ranges(WIDE, 2), [WIDE, WIDE])
    np.testing.assert_array_equal(Slots(shaping=to_unit).shaped_ranges(WIDE, 1), [[[0, 1], [0, 1]]])
    assert Slots(shaping=silent).shaped_ranges(WIDE, 1) is None
    each = Slots(shapings=[Doubled(2), Doubled(3)]).shaped_ranges(WIDE, 2)
    np.testing.assert_array_equal(each, [2 * WIDE, 3 * WIDE])


@pytest.mark.parametrize("said", [(1.0, 0.0), (0.0, float("inf")), [[0, 1]] * 3, "wide", 1.0, (0.0, 1.0, 2.0)])
def test_what_is_no_range_is_refused_by_the_name_of_its_shaping(said: object) -> None:
    def mine(rewards: torch.Tensor, ranges: np.ndarray) -> torch.Tensor:
        return rewards

    vars(mine)["shaped_ranges"] = said
    with pytest.raises(
        ConfigError, match=rf"shaped_ranges of shaping {__name__}:.*mine must be the lowest and a higher"
    ):
        shaped_ranges_of(mine, 2)
