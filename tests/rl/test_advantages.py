from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import micro_task
from paretune.core.errors import NonFiniteError, ShapeError
from paretune.core.task import Task
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.rl.advantages import (
    check_made,
    fold_in_kl,
    k_sample_mean,
    leave_one_out,
    reweighted,
    reweighted_kl,
    silenced,
    widths_made,
)
from paretune.rl.losses import clipped_loss, is_clipped, log_ratios, policy_gradient_loss, scalarise

NAN = float("nan")


def test_each_reward_is_compared_with_the_mean_of_the_others() -> None:
    rewards = torch.tensor([[1.0, 3.0], [0.0, 3.0], [0.5, 0.0], [2.0, 1.0], [4.0, 1.0], [0.0, 1.0]])
    # first group, first objective: 1 - (0 + .5)/2, 0 - (1 + .5)/2, .5 - (1 + 0)/2; and so on
    expected = torch.tensor([[0.75, 1.5], [-0.75, 1.5], [0.0, -3.0], [0.0, 0.0], [3.0, 0.0], [-3.0, 0.0]])
    assert leave_one_out(rewards, 3).equal(expected)


def test_a_missing_reward_says_nothing_and_is_left_out_of_the_baseline() -> None:
    rewards = torch.tensor([[1.0], [NAN], [0.0], [0.5]])
    # 1 - (0 + .5)/2, nothing, 0 - (1 + .5)/2, .5 - (1 + 0)/2; with a zero for the missing one: 1 - .5/3
    assert leave_one_out(rewards, 4).flatten().tolist() == [0.75, 0.0, -0.75, 0.0]


def test_a_reward_without_another_in_its_group_says_nothing() -> None:
    assert leave_one_out(torch.tensor([[1.0], [NAN], [NAN], [NAN]]), 2).flatten().tolist() == [0, 0, 0, 0]


def test_a_reward_missing_on_one_objective_leaves_the_others_alone() -> None:
    whole = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    part = torch.tensor([[1.0, NAN], [3.0, 5.0]])
    assert leave_one_out(part, 2)[:, 0].equal(leave_one_out(whole, 2)[:, 0])
    assert leave_one_out(part, 2)[:, 1].tolist() == [0, 0]


@given(st.integers(2, 9), st.integers(1, 4), st.integers(1, 3), st.integers(0, 10**6))
def test_advantages_are_g_over_g_minus_1_times_the_centred_rewards(g: int, groups: int, k: int, seed: int) -> None:
    rewards = torch.from_numpy(np.random.default_rng(seed).normal(size=(groups * g, k)))
    centred = rewards.view(groups, g, k) - rewards.view(groups, g, k).mean(dim=1, keepdim=True)
    expected = (centred * g / (g - 1)).view(rewards.shape)
    got = leave_one_out(rewards, g)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)  # fp64 sums of at most nine
    assert got.view(groups, g, k).sum(dim=1).abs().max() < 1e-12


def test_a_group_of_equal_rewards_teaches_nothing() -> None:
    assert not leave_one_out(torch.full((8, 2), 0.3, dtype=torch.float64), 4).abs().gt(1e-15).any()


@pytest.mark.parametrize("advantages", [leave_one_out, k_sample_mean])
@pytest.mark.parametrize(("shape", "group"), [((5, 2), 2), ((4, 2), 1), ((4,), 2)])
def test_rewards_that_are_no_whole_groups_are_refused(advantages: Any, shape: tuple[int, ...], group: int) -> None:
    with pytest.raises(ShapeError, match="B a multiple of the group size, at least 2, got"):
        advantages(torch.zeros(shape), group)


def test_a_baseline_of_all_samples_counts_the_own_reward() -> None:
    rewards = torch.tensor([[1.0, 3.0], [0.0, 3.0], [0.5, 0.0], [2.0, 1.0], [4.0, 1.0], [0.0, 1.0]])
    # first group: means (1 + 0 + .5)/3 = .5 and (3 + 3 + 0)/3 = 2; second: (2 + 4 + 0)/3 = 2 and 1
    expected = torch.tensor([[0.5, 1.0], [-0.5, 1.0], [0.0, -2.0], [0.0, 0.0], [2.0, 0.0], [-2.0, 0.0]])
    assert k_sample_mean(rewards, 3).equal(expected)


def test_a_missing_reward_is_left_out_of_the_mean_of_all_samples() -> None:
    rewards = torch.tensor([[1.0], [NAN], [0.0], [0.5]])  # mean .5 of three; with a zero for the missing one: .375
    assert k_sample_mean(rewards, 4).flatten().tolist() == [0.5, 0.0, -0.5, 0.0]
    assert k_sample_mean(torch.tensor([[1.0], [NAN], [NAN], [NAN]]), 2).flatten().tolist() == [0, 0, 0, 0]


@given(st.integers(2, 9), st.integers(1, 4), st.integers(1, 3), st.integers(0, 10**6))
def test_a_baseline_of_all_samples_costs_one_part_in_g_of_the_signal(g: int, groups: int, k: int, seed: int) -> None:
    rewards = torch.from_numpy(np.random.default_rng(seed).normal(size=(groups * g, k)))
    got, whole = k_sample_mean(rewards, g), leave_one_out(rewards, g)
    torch.testing.assert_close(got, whole * (g - 1) / g, rtol=0, atol=1e-12)  # fp64 sums of at most nine


def test_kl_is_subtracted_from_every_objective_with_its_own_baseline() -> None:
    advantages = torch.zeros(2, 3)
    # A_KL = +-(2 - 1): with beta .1 every objective loses .1 where the policy has moved further
    got = fold_in_kl(advantages, torch.tensor([2.0, 1.0]), 0.1, 2)
    torch.testing.assert_close(got, torch.tensor([[-0.1] * 3, [0.1] * 3]))


def test_without_beta_nothing_changes() -> None:
    advantages = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    assert fold_in_kl(advantages, torch.randn(4), 0.0, 2).equal(advantages)


def exact_gradient(bank: ExpertBank, prompt: list[int], log_ref: Tensor, weights: list[float], beta: float) -> Tensor:
    policy = micro_task.log_probs(bank.base, bank, [1.0], prompt)
    micro_task.value(policy, log_ref, weights, beta).backward()
    return bank.take_gradients()[0].double()


def expected_gradient(
    bank: ExpertBank, prompt: list[int], log_ref: Tensor, weights: list[float], beta: float, group: int
) -> Tensor:
    """Return the mean of the library's estimate over every group of completions that can be sampled, no noise left."""
    policy = micro_task.log_probs(bank.base, bank, [1.0], prompt)
    table = []
    for place in range(len(policy)):
        policy[place].backward(retain_graph=True)
        table.append(bank.take_gradients()[0].double())
    chances, kl = policy.detach().double().exp(), (policy.detach() - log_ref).double()
    groups = torch.cartesian_prod(*[torch.arange(len(policy))] * group)  # [57^G, G]
    drawn = groups.flatten()
    advantages = fold_in_kl(leave_one_out(torch.from_numpy(micro_task.rewards())[drawn], group), kl[drawn], beta, group)
    scalar = scalarise(advantages, torch.tensor(weights, dtype=torch.float64).expand(len(drawn), -1))
    mass = chances[groups].prod(dim=1).repeat_interleave(group) / chances.sum() ** group
    coefficients = torch.zeros(len(policy), dtype=torch.float64).scatter_add_(0, drawn, mass * scalar / group)
    return coefficients @ torch.stack(table)


@pytest.fixture
def moved(base: BaseModel) -> ExpertBank:
    return micro_task.perturb(ExpertBank(base, 1, rank=2), scale=0.2)


PROMPT = [1, 2]


def test_the_gradient_of_kl_is_not_zero_on_a_moved_expert_and_grows_with_beta(
    base: BaseModel, moved: ExpertBank
) -> None:
    log_ref = reference(moved)
    nothing = [0.0, 0.0]
    one = exact_gradient(moved, PROMPT, log_ref, nothing, 0.1)
    two = exact_gradient(moved, PROMPT, log_ref, nothing, 0.2)
    assert one.norm() > 1e-3
    torch.testing.assert_close(two, 2 * one, rtol=1e-4, atol=1e-6)  # linear in beta; fp32 backward
    fresh = ExpertBank(base, 1, rank=2)
    fresh.initialise([0])
    assert exact_gradient(fresh, PROMPT, log_ref, nothing, 0.1).norm() < 1e-6  # the minimum of KL


def reference(bank: ExpertBank) -> Tensor:
    with torch.no_grad():
        return micro_task.log_probs(bank.base, bank, [0.0], PROMPT)


@pytest.mark.parametrize("group", [2, 3])
@pytest.mark.parametrize(("weights", "beta"), [([1.0, 0.0], 0.0), ([0.3, 0.7], 0.3), ([0.5, 0.5], 2.0)])
def test_the_mean_of_all_sampled_gradients_is_the_exact_gradient_of_j(
    moved: ExpertBank, weights: list[float], beta: float, group: int
) -> None:
    log_ref = reference(moved)
    exact = exact_gradient(moved, PROMPT, log_ref, weights, beta)
    mean = expected_gradient(moved, PROMPT, log_ref, weights, beta, group)
    assert exact.norm() > 1e-2
    assert (mean - exact).norm() < 1e-4 * exact.norm()  # fp32 backward passes
    other_sign = expected_gradient(moved, PROMPT, log_ref, weights, -beta - 0.1, group)
    assert (other_sign - exact).norm() > 0.1 * exact.norm()  # the tolerance tells a wrong term of KL apart


def test_kl_alone_has_the_exact_gradient_of_minus_beta_kl(moved: ExpertBank) -> None:
    log_ref, beta = reference(moved), 0.5
    exact = exact_gradient(moved, PROMPT, log_ref, [0.0, 0.0], beta)
    weights = [0.5, 0.5]
    mean = expected_gradient(moved, PROMPT, log_ref, weights, beta, 2)
    mean -= expected_gradient(moved, PROMPT, log_ref, weights, 0.0, 2)
    assert (mean - exact).norm() < 1e-4 * exact.norm()  # fp32 backward passes


def test_weights_scale_objectives_row_by_row() -> None:
    advantages = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    assert scalarise(advantages, torch.tensor([[0.5, 0.5], [1.0, 0.0]])).tolist() == [1.5, 3.0]
    with pytest.raises(ShapeError, match=r"one shape, got \[2, 2\] and \[1, 2\]"):
        scalarise(advantages, torch.ones(1, 2))


def test_the_loss_sums_over_tokens_and_divides_by_completions() -> None:
    log_probs = torch.tensor([[-1.0, -2.0], [-0.5, 0.0]], requires_grad=True)
    advantages = torch.tensor([2.0, -4.0], requires_grad=True)
    loss = policy_gradient_loss(log_probs, advantages, 2)
    assert float(loss.detach()) == -(2 * -3 + -4 * -0.5) / 2  # 2.0
    loss.backward()
    assert log_probs.grad is not None
    assert log_probs.grad.tolist() == [[-1, -1], [2, 2]]
    assert advantages.grad is None


def test_the_task_of_these_tests_leaves_room_between_the_base_model_and_the_optimum(
    task: Task, base: BaseModel
) -> None:
    for prompt in micro_task.PROMPTS["train"]:
        log_ref = micro_task.log_probs(base, None, [], base.encode(prompt))
        assert float(log_ref.exp().sum()) == pytest.approx(1, abs=1e-5)
        for weights in ([1.0, 0.0], [0.5, 0.5], [0.0, 1.0]):
            best, start = micro_task.best_value(log_ref, weights), micro_task.reference_value(log_ref, weights)
            assert best - start > 0.05
            optimum = log_ref + torch.from_numpy(micro_task.rewards() @ np.asarray(weights)) / task.beta
            optimum = optimum - optimum.logsumexp(dim=0)
            assert float(micro_task.value(optimum, log_ref, weights)) == pytest.approx(best, abs=1e-6)  # fp32


def test_a_later_baseline_counts_a_completion_that_became_twice_as_likely_twice() -> None:
    """x = r - .1 kl = [1 - .1, 0, .4 + .2]; v = [2 (5 is cut), 1, 1]: baseline (2 * .9 + 0 + .6) / 4 = .6."""
    rewards, kl = torch.tensor([[1.0], [0.0], [0.4]]), torch.tensor([1.0, 0.0, -2.0])
    got = reweighted(rewards, kl, torch.tensor([5.0, 1.0, 1.0]), 0.1, 3)
    torch.testing.assert_close(got, torch.tensor([[0.3], [-0.6], [0.0]]))


def test_at_equal_ratios_a_later_baseline_is_the_mean_of_the_group() -> None:
    rewards, kl = torch.rand(8, 2), torch.randn(8)
    got = reweighted(rewards, kl, torch.ones(8), 0.3, 4)
    mean_based = fold_in_kl(leave_one_out(rewards, 4), kl, 0.3, 4) * 3 / 4  # leave-one-out is G / (G - 1) times as long
    torch.testing.assert_close(got, mean_based)


def test_a_missing_reward_is_no_part_of_a_later_baseline() -> None:
    """Objective 0: baseline (1 + 0) / 2; objective 1: one reward alone says nothing."""
    rewards = torch.tensor([[1.0, torch.nan], [torch.nan, 0.5], [0.0, torch.nan]])
    got = reweighted(rewards, torch.zeros(3), torch.ones(3), 0.1, 3)
    torch.testing.assert_close(got, torch.tensor([[0.5, 0.0], [0.0, 0.0], [-0.5, 0.0]]))


def test_a_completion_without_a_reward_is_in_the_kl_like_any_other_in_every_epoch() -> None:
    """Against the mean of a group of 4, a later epoch's KL is 3 / 4 of that against the other completions."""
    rewards, kl = torch.linspace(0, 1, 24, dtype=torch.float64).view(12, 2), torch.arange(12, dtype=torch.float64) ** 2
    rewards[[0, 5]], rewards[8:11, 1] = torch.nan, torch.nan  # one of a group, and all but one of another
    first = fold_in_kl(leave_one_out(rewards, 4), kl, 0.3, 4) - leave_one_out(rewards, 4)
    none, ones = torch.zeros(12, dtype=torch.float64), torch.ones(12, dtype=torch.float64)
    later = reweighted(rewards, kl, ones, 0.3, 4) - reweighted(rewards, none, ones, 0.3, 4)
    torch.testing.assert_close(later, first * 3 / 4)
    assert later.abs().min() > 0.1  # squares are never the mean of four


def test_a_missing_reward_counts_as_the_mean_of_the_others_of_a_later_epoch() -> None:
    """r = [1, -, .4], v = [2, 1, 1], so - is (2 + .4) / 3 = .8; x = r - .1 kl = [.9, .6, .4], its mean 2.8 / 4 = .7."""
    rewards, kl = torch.tensor([[1.0], [torch.nan], [0.4]]), torch.tensor([1.0, 2.0, 0.0])
    got = reweighted(rewards, kl, torch.tensor([5.0, 1.0, 1.0]), 0.1, 3)
    torch.testing.assert_close(got, torch.tensor([[0.2], [-0.1], [-0.3]]))


def test_the_kl_of_a_later_epoch_joins_advantages_of_another_estimator() -> None:
    advantages, kl = torch.tensor([[1.0], [-1.0]]), torch.tensor([2.0, 0.0])
    got = reweighted_kl(advantages, kl, torch.ones(2), 0.1, 2)  # KL against its mean 1: -.1 and +.1
    torch.testing.assert_close(got, torch.tensor([[0.9], [-0.9]]))


def test_advantages_of_the_size_of_rounding_are_silenced_by_prompt_and_objective() -> None:
    advantages = torch.tensor([[1e-8, 0.5], [-1e-8, -0.5], [1e-3, 1e-7], [1e-9, -1e-7]], dtype=torch.float64)
    got = silenced(advantages, torch.tensor([1.0, 1.0], dtype=torch.float64), 2)
    expected = torch.tensor([[0, 0.5], [0, -0.5], [1e-3, 0], [1e-9, 0]], dtype=torch.float64)
    assert got.equal(expected)  # the second prompt keeps 1e-9: its other advantage is no rounding error
    wide = silenced(advantages, torch.tensor([1e4, 1e-3], dtype=torch.float64), 2)
    assert wide[2, 0] == 0
    assert wide[2, 1] == 1e-7


def test_each_row_may_have_a_width_of_its_own_below_which_it_is_silenced() -> None:
    advantages = torch.tensor([[1e-3], [-1e-3], [1e-3], [-1e-3]], dtype=torch.float64)
    got = silenced(advantages, torch.tensor([[1.0], [1.0], [1e4], [1e4]]), 2)
    assert got.equal(torch.tensor([[1e-3], [-1e-3], [0], [0]], dtype=torch.float64))


def test_advantages_of_an_unknown_unit_are_as_wide_as_the_largest_and_never_wider_than_rewards() -> None:
    """Columns: standardised; larger than the range; of equal rewards; of none; without any advantage."""
    rewards = torch.tensor([[0.0, 0.0, 0.3, NAN, 0.0], [1e7, 1.0, 0.3 + 1e-9, NAN, 1.0]], dtype=torch.float64)[None]
    made = torch.tensor([[-1.5, -4.0, -1e-9, 0.0, 0.0], [1.9, 4.0, 1e-9, 0.0, 0.0]], dtype=torch.float64)[None]
    widths = torch.tensor([[1e7, 1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    assert widths_made(made, rewards, widths).tolist() == [[1.9, 1.0, 1.0, 1.0, 1.0]]
    both = widths_made(torch.cat([made, made / 2]), rewards.expand(2, -1, -1), widths.expand(2, -1))
    assert both[:, 0].tolist() == [1.9, 0.95]  # each member's own


def test_the_clipped_loss_stops_at_its_bounds() -> None:
    """N = 2, A = (1, -1): at rho = 1.5 and .5 the bounds 1.2 and .8 count, at 1.1 and .9 the ratios themselves."""
    for values, expected, moves in (([1.5, 0.5], -(1.2 - 0.8) / 2, False), ([1.1, 0.9], -(1.1 - 0.9) / 2, True)):
        ratios = torch.tensor(values, requires_grad=True)
        loss = clipped_loss(ratios, torch.tensor([1.0, -1.0]), 2, 0.2)
        loss.backward()
        assert loss.item() == pytest.approx(expected)
        assert ratios.grad is not None
        assert bool((ratios.grad != 0).all()) is moves
        assert is_clipped(ratios.detach(), torch.tensor([1.0, -1.0]), 0.2).tolist() == [not moves] * 2
    wrong_way = torch.tensor([0.5, 1.5], requires_grad=True)  # a good one that became rarer is not held
    clipped_loss(wrong_way, torch.tensor([1.0, -1.0]), 2, 0.2).backward()
    assert wrong_way.grad is not None
    assert wrong_way.grad.tolist() == [-0.5, 0.5]


def test_at_the_sampled_policy_the_clipped_loss_has_the_policy_gradient() -> None:
    log_probs = torch.randn(4, 3, requires_grad=True)
    advantages = torch.randn(4)
    plain = torch.autograd.grad(policy_gradient_loss(log_probs, advantages, 4), log_probs)[0]
    ratios = log_ratios(log_probs.sum(dim=1), log_probs.detach().sum(dim=1)).exp()
    torch.testing.assert_close(torch.autograd.grad(clipped_loss(ratios, advantages, 4, 0.2), log_probs)[0], plain)


def test_shaping_may_leave_out_what_is_missing_and_advantages_may_not() -> None:
    rewards = torch.tensor([[torch.nan], [1.0]])
    assert check_made("shaping", rewards.log(), rewards, missing=True)[1].item() == 0.0
    with pytest.raises(NonFiniteError, match="shaping must return finite numbers, got nan for a reward of 1"):
        check_made("shaping", torch.full_like(rewards, torch.nan), rewards, missing=True)
    with pytest.raises(NonFiniteError, match="advantages must return finite numbers, got nan for a reward of nan"):
        check_made("advantages", rewards - 1, rewards)
