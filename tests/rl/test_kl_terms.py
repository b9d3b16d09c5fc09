"""Gradients of estimates of the KL and of the entropy, their exact means against the exact gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import micro_task
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.mixing import Mixing
from paretune.models.scoring import completion_log_probs, log_probs_and_entropies, token_entropies
from paretune.rl.advantages import fold_in_kl
from paretune.rl.losses import k3, policy_gradient_loss
from paretune.rl.token_terms import TokenTerms


class Table:
    """A policy of two tokens, each of 4: logits of the first `[4]`, and of the second after each first one `[4, 4]`."""

    def __init__(self, seed: int, length: int = 2) -> None:
        draws = torch.Generator().manual_seed(seed)
        self.first = torch.randn(4, dtype=torch.float64, generator=draws).requires_grad_()
        self.second = torch.randn(4, 4, dtype=torch.float64, generator=draws).requires_grad_()
        self.length = length

    def tokens(self) -> Tensor:
        """Log-probabilities of the tokens of every completion, `[4^T, T]`."""
        first = self.first.log_softmax(dim=0)
        if self.length == 1:
            return first[:, None]
        second = self.second.log_softmax(dim=1)
        return torch.stack([first[:, None].expand(4, 4), second], dim=2).view(16, 2)

    def entropies(self) -> Tensor:
        """Entropies of the distributions that the tokens of every completion are drawn from, `[4^T, T]`."""
        first = token_entropies(self.first[None, None], torch.zeros(1, 1), torch.ones(1))[0, 0].double()
        if self.length == 1:
            return first.expand(4)[:, None]
        lengths = torch.ones(4)
        second = token_entropies(self.second[:, None], torch.zeros(4, 1), lengths)[:, 0].double()
        return torch.stack([first.expand(4, 4), second[:, None].expand(4, 4)], dim=2).reshape(16, 2)

    def gradient(self, value: Tensor) -> Tensor:
        chosen = [self.first] if self.length == 1 else [self.first, self.second]
        return torch.cat([part.flatten() for part in torch.autograd.grad(value, chosen)])


def exact_kl(one: Tensor, other: Tensor) -> Tensor:
    return (one.sum(dim=1).exp() * (one - other).sum(dim=1)).sum()


def in_the_loss(policy: Table, reference: Tensor, corrected: bool) -> Tensor:
    """Return the mean gradient of k3 over everything that can be sampled: what a sampled step has on average."""
    now = policy.tokens()
    chances = now.detach().sum(dim=1).exp()
    return policy.gradient(TokenTerms(chances, chances, reference, now.detach(), corrected, False).loss(now, None))


@pytest.mark.parametrize("length", [1, 2])
def test_k1_in_the_advantages_has_the_gradient_of_the_kl(length: int) -> None:
    policy, reference = Table(0, length), Table(1, length).tokens().detach()
    now = policy.tokens()
    whole = now.sum(dim=1)
    exact = policy.gradient(exact_kl(now, reference))
    # of every pair that can be sampled, the mean: a pair has one other completion as baseline
    pairs = torch.cartesian_prod(torch.arange(len(now)), torch.arange(len(now)))
    kl = (whole.detach() - reference.sum(dim=1))[pairs.flatten()]
    folded = fold_in_kl(torch.zeros(len(kl), 1, dtype=torch.float64), kl, 1.0, 2)[:, 0]
    chances = whole.detach().exp()[pairs].prod(dim=1).repeat_interleave(2)
    mean = policy.gradient(policy_gradient_loss(policy.tokens()[pairs.flatten()], folded * chances, 2))
    torch.testing.assert_close(mean, exact)


def test_the_gradient_of_k3_is_biased_it_is_that_of_the_kl_from_the_other_side() -> None:
    policy, reference = Table(0, 1), Table(1, 1).tokens().detach()
    found = in_the_loss(policy, reference, corrected=False)
    torch.testing.assert_close(found, policy.gradient(exact_kl(reference, policy.tokens())))
    exact = policy.gradient(exact_kl(policy.tokens(), reference))
    assert (found - exact).norm() > 0.2 * exact.norm()
    mean = (policy.tokens().exp() * k3(policy.tokens(), reference)).sum()  # of the estimate itself, not of its gradient
    torch.testing.assert_close(mean, exact_kl(policy.tokens(), reference))


def test_k3_with_its_ratio_has_the_gradient_of_the_kl_of_a_token() -> None:
    policy, reference = Table(0, 1), Table(1, 1).tokens().detach()
    exact = policy.gradient(exact_kl(policy.tokens(), reference))
    torch.testing.assert_close(in_the_loss(policy, reference, corrected=True), exact)


def test_no_k3_counts_what_a_token_does_to_the_kl_of_later_ones() -> None:
    policy, reference = Table(0), Table(1).tokens().detach()
    exact = policy.gradient(exact_kl(policy.tokens(), reference))
    found = in_the_loss(policy, reference, corrected=True)
    assert (found[:4] - exact[:4]).norm() > 0.05 * exact[:4].norm()  # the first token's logits
    torch.testing.assert_close(found[4:], exact[4:])  # the last token has no later ones


def bonus(policy: Table) -> Tensor:
    chances = policy.tokens().detach().sum(dim=1).exp()
    nothing = torch.zeros_like(policy.tokens()).detach()
    terms = TokenTerms(torch.zeros_like(chances), chances, nothing, nothing, False, True)
    return -policy.gradient(terms.loss(policy.tokens(), policy.entropies()))


def entropy(policy: Table) -> Tensor:
    whole = policy.tokens().sum(dim=1)
    return -(whole.exp() * whole).sum()


def test_the_bonus_has_the_gradient_of_the_entropy_of_a_token_and_not_of_a_text() -> None:
    one = Table(0, 1)
    close = {"rtol": 1e-5, "atol": 1e-6}  # entropies are made in fp32
    torch.testing.assert_close(bonus(one), one.gradient(entropy(one)), **close)
    two = Table(0)
    exact = two.gradient(entropy(two))
    torch.testing.assert_close(bonus(two)[4:], exact[4:], **close)
    assert (bonus(two)[:4] - exact[:4]).norm() > 0.02 * exact[:4].norm()


def test_entropies_of_impossible_tokens_are_0_and_have_a_gradient() -> None:
    logits = torch.tensor([[[0.0, -torch.inf, 0.0], [200.0, 0.0, -torch.inf]]], requires_grad=True)
    found = token_entropies(logits, torch.zeros(1, 2), torch.tensor([2]))
    assert found.tolist() == [[pytest.approx(0.6931472), 0.0]]
    found.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_scoring_gives_log_probabilities_and_entropies_in_one_pass(base: BaseModel) -> None:
    bank = micro_task.perturb(ExpertBank(base, 2, rank=2), scale=0.2)
    prompts, ids = [(1, 2), (1, 2), (3,), (4, 5)], torch.tensor([[1, 2], [0, 0], [3, 0], [4, 4]])
    lengths = torch.tensor([2, 1, 2, 2])
    mixing = Mixing.population(2, 2)
    log_probs, entropies = log_probs_and_entropies(base, bank, mixing, prompts, ids, lengths)
    assert log_probs.equal(completion_log_probs(base, bank, mixing, prompts, ids, lengths))
    for row, prompt in enumerate(prompts):
        expert = row // 2
        weights = [0.0, 0.0]
        weights[expert] = 1.0
        for step in range(int(lengths[row])):
            read = torch.tensor([[*prompt, *ids[row, :step].tolist()]])
            with torch.no_grad(), bank.using(Mixing.of_rows(torch.tensor([weights]))):
                table = base.model(read, use_cache=False).logits[0, -1].log_softmax(dim=0)
            assert float(entropies[row, step].detach()) == pytest.approx(float(-(table.exp() * table).sum()), abs=1e-5)
    assert not entropies[1, 1:].any()
