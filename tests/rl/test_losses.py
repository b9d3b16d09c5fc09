"""Loss types and ratios, held against TRL's formulas written out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from paretune.rl.losses import clipped_loss, completion_factors, k3, policy_gradient_loss
from paretune.rl.token_terms import TokenTerms

LENGTHS = torch.tensor([3, 1, 2, 4, 1, 1])
LONGEST, CLIP = 5, 0.2
INSIDE = torch.arange(4)[None] < LENGTHS[:, None]
ADVANTAGES = torch.tensor([1.0, -0.5, 2.0, -1.5, 0.3, 0.7], dtype=torch.float64)


def tokens(seed: int) -> Tensor:
    made = -torch.rand(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3
    return made * INSIDE


def per_token(now: Tensor, old: Tensor, level: str) -> Tensor:
    """TRL's per-token loss: -min(ratio A, clip(ratio) A), the ratio a token's or the root of a sequence's."""
    apart = now - old
    if level == "sequence":
        apart = (apart.sum(dim=1) / LENGTHS)[:, None]
    ratio, advantages = apart.exp(), ADVANTAGES[:, None]
    return -torch.min(ratio * advantages, ratio.clamp(1 - CLIP, 1 + CLIP) * advantages).expand(6, 4)


def aggregated(losses: Tensor, loss_type: str) -> Tensor:
    """TRL's normalisations of masked per-token losses, without accumulation."""
    total = losses * INSIDE
    return {
        "sum": total.sum(dim=1).mean(),  # TRL's luspo
        "grpo": (total.sum(dim=1) / LENGTHS).mean(),
        "bnpo": total.sum() / INSIDE.sum(),
        "dapo": total.sum() / INSIDE.sum(),
        "dr_grpo": total.sum() / (6 * LONGEST),
    }[loss_type]


@pytest.mark.parametrize("loss_type", ["sum", "grpo", "bnpo", "dapo", "dr_grpo"])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_losses_and_gradients_are_those_of_trl(loss_type: str, level: str) -> None:
    now, old = tokens(1).requires_grad_(), tokens(2)
    expected = aggregated(per_token(now, old, level), loss_type)
    (wanted,) = torch.autograd.grad(expected, now)
    weighed = ADVANTAGES * completion_factors(loss_type, LENGTHS, 1, LONGEST)
    if level == "token":
        ratios = (now - old).exp()
        found = clipped_loss(ratios, weighed[:, None], 6, CLIP)
        found = found + (weighed * (4 - LENGTHS)).sum() / 6  # ratios behind the end are 1 without gradient
    else:
        ratios = ((now - old).sum(dim=1) / LENGTHS).exp()
        found = clipped_loss(ratios, weighed * LENGTHS, 6, CLIP)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, now)[0] * INSIDE, wanted * INSIDE)


@pytest.mark.parametrize("loss_type", ["sum", "grpo", "bnpo", "dapo", "dr_grpo"])
def test_on_policy_all_levels_have_the_gradient_of_the_plain_loss(loss_type: str) -> None:
    now = tokens(1).requires_grad_()
    expected = aggregated(per_token(now, now.detach(), "token"), loss_type)
    found = policy_gradient_loss(now, ADVANTAGES * completion_factors(loss_type, LENGTHS, 1, LONGEST), 6)
    (one,), (other,) = torch.autograd.grad(expected, now), torch.autograd.grad(found, now)
    torch.testing.assert_close(one, other * INSIDE)


def test_each_member_is_divided_by_its_own_tokens() -> None:
    both = completion_factors("dapo", LENGTHS, 2, LONGEST)
    assert both.tolist() == pytest.approx([3 / 6] * 3 + [3 / 6] * 3)  # 3 + 1 + 2 and 4 + 1 + 1 tokens
    assert completion_factors("dapo", LENGTHS, 3, LONGEST).tolist() == pytest.approx(
        [2 / 4] * 2 + [2 / 6] * 2 + [1.0] * 2
    )


def test_bnpo_divides_by_the_tokens_of_a_pass_and_dapo_by_those_of_the_update() -> None:
    """Passes of 2 completions have 4, 6 and 2 tokens; each counts a third of the update."""
    found = completion_factors("bnpo", LENGTHS, 1, LONGEST, micro_batch=2)
    assert found.tolist() == pytest.approx([6 / 3 / 4] * 2 + [6 / 3 / 6] * 2 + [6 / 3 / 2] * 2)
    assert completion_factors("dapo", LENGTHS, 1, LONGEST, micro_batch=2).tolist() == pytest.approx([6 / 12] * 6)


def test_dividing_by_length_pushes_a_long_bad_completion_down_less_a_token() -> None:
    now = tokens(1).requires_grad_()
    bad = -torch.ones(6, dtype=torch.float64)
    for loss_type, even in (("sum", True), ("grpo", False)):
        loss = policy_gradient_loss(now, bad * completion_factors(loss_type, LENGTHS, 1, LONGEST), 6)
        (gradient,) = torch.autograd.grad(loss, now)
        assert (float(gradient[3, 0]) == float(gradient[1, 0])) is even


@pytest.mark.parametrize("corrected", [False, True])
def test_the_kl_term_of_the_loss_is_that_of_trl(corrected: bool) -> None:
    now, old, reference, beta = tokens(1).requires_grad_(), tokens(2), tokens(3), 0.3
    apart = (reference - now).exp() - (reference - now) - 1
    if corrected:
        apart = apart * (now - old).exp()
    expected = aggregated(beta * apart, "grpo")
    factors = beta * completion_factors("grpo", LENGTHS, 1, LONGEST) / 6
    found = TokenTerms(factors, torch.zeros(6), reference, old, corrected, False).loss(now, None)
    torch.testing.assert_close(found, expected)
    (one,), (other,) = torch.autograd.grad(expected, now), torch.autograd.grad(found, now)
    torch.testing.assert_close(one, other)


def test_k3_is_never_negative_and_0_at_the_reference() -> None:
    assert (k3(tokens(1), tokens(2))[INSIDE] > 0).all()
    assert not k3(tokens(1), tokens(1)).any()


def test_the_entropy_bonus_lowers_the_loss_by_the_mean_entropy_of_tokens() -> None:
    entropies = tokens(1).abs()
    bonus = torch.full((6,), 0.1 / 12, dtype=torch.float64)
    nothing = torch.zeros(6, dtype=torch.float64)
    terms = TokenTerms(nothing, bonus, tokens(2), tokens(2), False, True)
    assert float(terms.loss(tokens(2), entropies)) == pytest.approx(-0.1 * float(entropies.sum()) / 12)
