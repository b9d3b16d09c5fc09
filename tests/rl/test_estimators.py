"""Estimators of advantages, held against TRL's formulas written out by hand, and the slot they are found in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from paretune.core.errors import ConfigError, MethodError, NonFiniteError, ShapeError, UnknownNameError
from paretune.rl import advantages as formulas
from paretune.rl.advantages import gdpo, grpo, self_critical
from paretune.rl.estimators import estimator_of, resolve_advantages, signal_widths
from paretune.rl.settings import ADVANTAGES, WEIGHED, LearnerSettings

UNIT = np.asarray([[0.0, 1.0]] * 3)  # ranges of width 1, for which TRL's epsilon is ours
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)


def drawn(groups: int = 5, size: int = 4, seed: int = 0) -> Tensor:
    return torch.rand(groups * size, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rows(rewards: Tensor, weights: Tensor = WEIGHTS) -> Tensor:
    return weights.to(rewards).expand(rewards.shape)


def sum_then_normalize(rewards: Tensor, weights: Tensor, size: int) -> Tensor:
    """TRL 1.16's default for several rewards, written out for rewards that are all there: `[B]`."""
    groups = (rewards * weights).sum(dim=1).view(-1, size)
    return ((groups - groups.mean(dim=1, keepdim=True)) / (groups.std(dim=1, keepdim=True) + 1e-4)).flatten()


def normalize_then_sum(rewards: Tensor, weights: Tensor, size: int) -> Tensor:
    """TRL 1.16's GDPO, written out likewise: `[B]`."""
    groups = rewards.view(-1, size, rewards.shape[1])
    each = (groups - groups.mean(dim=1, keepdim=True)) / (groups.std(dim=1, keepdim=True) + 1e-4)
    total = (each.view(rewards.shape) * weights).sum(dim=1)
    return (total - total.mean()) / (total.std() + 1e-4)


@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_weighed_advantages_are_those_of_trl(size: int, groups: int, seed: int) -> None:
    rewards = drawn(groups, size, seed)
    for made, published in ((grpo, sum_then_normalize), (gdpo, normalize_then_sum)):
        found = (made(rewards, size, rows(rewards), UNIT) * WEIGHTS).sum(dim=1)
        torch.testing.assert_close(found, published(rewards, WEIGHTS, size), rtol=1e-9, atol=1e-9)  # float64 sums


def test_two_completions_of_a_group_worked_out_by_hand() -> None:
    """Weighed sums are .5 and .25: mean .375, deviation .125 sqrt(2); centred rewards are +-.5 and -+.25."""
    rewards = torch.tensor([[1.0, 0.0], [0.0, 0.5]], dtype=torch.float64)
    found = grpo(rewards, 2, torch.full((2, 2), 0.5), np.asarray([[0, 1], [0, 1]]))
    scale = 0.125 * 2**0.5 + 1e-4
    torch.testing.assert_close(found, torch.tensor([[0.5, -0.25], [-0.5, 0.25]], dtype=torch.float64) / scale)


@given(
    st.lists(st.floats(0.01, 100.0), min_size=3, max_size=3), st.lists(st.floats(-50.0, 50.0), min_size=3, max_size=3)
)
@settings(deadline=None, max_examples=30)
def test_gdpo_does_not_change_with_the_unit_and_zero_of_any_reward(scales: list[float], shifts: list[float]) -> None:
    rewards = drawn()
    before = gdpo(rewards, 4, rows(rewards), UNIT)
    factors, zeros = torch.tensor(scales, dtype=torch.float64), torch.tensor(shifts, dtype=torch.float64)
    moved = UNIT * np.asarray(scales)[:, None] + np.asarray(shifts)[:, None]
    after = gdpo(rewards * factors + zeros, 4, rows(rewards), moved)
    torch.testing.assert_close(after, before, rtol=1e-6, atol=1e-8)  # a shift of 50 leaves 14 digits less 4 of .01


def test_grpo_does_change_with_the_unit_of_one_reward() -> None:
    rewards = drawn()
    scaled = torch.tensor([10.0, 1.0, 1.0], dtype=torch.float64)
    before = (grpo(rewards, 4, rows(rewards), UNIT) * WEIGHTS).sum(dim=1)
    after = (grpo(rewards * scaled, 4, rows(rewards), UNIT) * WEIGHTS).sum(dim=1)
    assert (after - before).abs().max() > 0.1


@pytest.mark.parametrize("noise", [0.0, 1e-9])
def test_a_reward_that_is_constant_in_a_group_is_left_out_and_not_blown_up(noise: float) -> None:
    rewards = drawn()
    rewards[:4, 1] = 0.7 + noise * torch.tensor([1.0, -1.0, 0.5, 0.0], dtype=torch.float64)
    found = gdpo(rewards, 4, rows(rewards), UNIT)
    assert not found[:4, 1].any()
    assert found[:4, [0, 2]].abs().min() > 0
    rewards[:4] = 0.7 + noise * rewards[:4]
    for made in (grpo, gdpo):
        assert not made(rewards, 4, rows(rewards), UNIT)[:4].any()
        assert (made(rewards, 4, rows(rewards), UNIT) * WEIGHTS).sum(dim=1).abs().max() < 3  # deviations


def test_groups_of_equal_sums_teach_gdpo_and_not_grpo() -> None:
    """Filters on the sum drop such groups, whose rewards differ objective by objective."""
    rewards = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    weights, ranges = torch.full((4, 2), 0.5), np.asarray([[0, 1], [0, 1]])
    assert not grpo(rewards, 2, weights, ranges)[:2].any()
    assert gdpo(rewards, 2, weights, ranges)[:2].abs().min() > 0.1


def test_a_missing_reward_says_nothing_and_leaves_other_objectives_as_they_are() -> None:
    rewards = drawn()
    lost = rewards.clone()
    lost[2, 0] = torch.nan
    for made in (grpo, gdpo):
        corner = torch.tensor([0.0, 0.4, 0.6], dtype=torch.float64)  # the lost objective has no weight
        whole = made(rewards, 4, rows(rewards, corner), UNIT)
        found = made(lost, 4, rows(rewards, corner), UNIT)
        assert found[2, 0] == 0
        torch.testing.assert_close(found[:, 1:], whole[:, 1:])
        assert made(lost, 4, rows(rewards), UNIT).isfinite().all()
    alone = lost.clone()
    alone[1:4, 0] = torch.nan
    assert not gdpo(alone, 4, rows(rewards), UNIT)[:4, 0].any()  # nobody to compare it with


def test_a_missing_reward_leaves_one_objective_with_the_deviation_of_the_others() -> None:
    """With one objective the group is that of the three rewards: 0, 1, 2, of mean 1 and deviation 1."""
    rewards = torch.tensor([[0.0], [1.0], [2.0], [torch.nan]], dtype=torch.float64)
    found = grpo(rewards, 4, torch.ones(4, 1), np.asarray([[0.0, 1.0]]))
    expected = torch.tensor([[-1.0], [0.0], [1.0], [0.0]], dtype=torch.float64) / (1 + 1e-4)
    torch.testing.assert_close(found, expected)


def test_a_greedy_completion_is_the_baseline_of_its_prompt() -> None:
    rewards = torch.tensor([[1.0], [0.0], [torch.nan], [0.5]])
    greedy = torch.tensor([[0.75], [0.75], [0.25], [0.25]])
    assert self_critical(rewards, 2, greedy).tolist() == [[0.25], [-0.75], [0.0], [0.25]]
    assert self_critical(rewards, 2, greedy * torch.nan).tolist() == [[0.0]] * 4
    with pytest.raises(ShapeError, match="multiple of the group size"):
        self_critical(rewards, 3, greedy)


def test_words_name_the_formulas_and_say_what_they_need() -> None:
    assert resolve_advantages("leave_one_out") is None
    for name in set(ADVANTAGES) - {"leave_one_out"}:
        found = resolve_advantages(name)
        assert found is not None
        assert found.function is getattr(formulas, name)
        assert found.weighed == (name in WEIGHED)
        assert found.greedy == (name == "self_critical")


def test_a_function_gets_what_it_asks_for_and_one_members_rows_at_a_time() -> None:
    seen: list[tuple[Any, ...]] = []

    def own(rewards: Tensor, group_size: int, ranges: Any, objective_weights: Tensor) -> Tensor:
        seen.append((rewards, group_size, ranges, objective_weights))
        return rewards - rewards.mean()

    rewards, weights = drawn(4), torch.arange(48, dtype=torch.float64).view(16, 3)
    made = estimator_of(own).apply(rewards, 4, 2, {"objective_weights": weights}, UNIT)
    assert [len(each[0]) for each in seen] == [8, 8]
    assert seen[1][1:3][0] == 4
    assert seen[1][3].equal(weights[8:])
    torch.testing.assert_close(made[8:], rewards[8:] - rewards[8:].mean())
    assert not made[8:].equal((rewards - rewards.mean())[8:])


def test_each_member_has_the_ranges_of_its_own_rewards() -> None:
    seen: list[Any] = []

    def own(rewards: Tensor, group_size: int, ranges: Any) -> Tensor:
        seen.append(ranges.tolist())
        return rewards

    estimator_of(own).apply(drawn(4), 4, 2, {}, np.stack([UNIT, 2 * UNIT]))
    assert seen == [UNIT.tolist(), (2 * UNIT).tolist()]


@pytest.mark.parametrize("same_unit", [True, False])
def test_advantages_are_silenced_in_their_own_unit(same_unit: bool) -> None:
    """In the rewards' unit, in deviations, or in one that nobody knows, as those of a function of one's own."""
    rewards, ranges = 1e3 * drawn(4), np.stack([1e3 * UNIT, 1e4 * UNIT])
    in_rewards, in_deviations = np.repeat([1e3, 1e4], 8), np.ones(16)
    made = torch.full((16, 3), -0.5, dtype=torch.float64)
    by_name = {name: in_deviations if name in WEIGHED else in_rewards for name in ADVANTAGES}
    for name, expected in by_name.items():
        wanted = expected if same_unit or name in WEIGHED else np.full(16, 0.5)
        found = signal_widths(resolve_advantages(name), made, rewards, ranges, same_unit)
        np.testing.assert_array_equal(found, np.repeat(wanted[:, None], 3, axis=1))
    mine = estimator_of(lambda rewards, group_size: rewards)
    assert (signal_widths(mine, made, rewards, ranges, same_unit) == 0.5).all()


def test_what_is_no_estimator_is_refused() -> None:
    with pytest.raises(MethodError, match=r"advantages '.*<lambda>' must take \(rewards \[B, K\], group_size\)"):
        estimator_of(lambda rewards: rewards)
    with pytest.raises(MethodError, match="must take"):
        estimator_of(lambda rewards, group_size, weights: rewards)
    with pytest.raises(ConfigError, match="advantages must be an importable 'module:name', got 'nobody:home'"):
        resolve_advantages("nobody:home")
    with pytest.raises(UnknownNameError, match=r"advantages must be one of gdpo, grpo, .*Did you mean 'grpo'"):
        LearnerSettings(advantages="grpp")
    broken = estimator_of(lambda rewards, group_size: rewards / 0)
    with pytest.raises(NonFiniteError, match="must return finite numbers"):
        broken.apply(drawn(), 4, 1, {}, UNIT)
