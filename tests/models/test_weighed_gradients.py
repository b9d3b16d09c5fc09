"""Gradients of weighed log-probabilities with prompts read once, held against a backward pass for each objective."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import micro_task
from paretune.core.errors import MixingError, ShapeError
from paretune.models import scoring
from paretune.models import weighed_gradients as module
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.mixing import Mixing
from paretune.models.scoring import completion_log_probs
from paretune.models.weighed_gradients import weighed_gradients

PROMPTS = [(1, 2, 3), (4,), (1, 2, 3), (4,), (5, 5), (1, 2, 3)]
TOKENS = torch.tensor([[1, 2, 0], [3, 0, 0], [4, 5, 6], [0, 0, 0], [7, 7, 0], [2, 0, 0]])
LENGTHS = torch.tensor([3, 2, 3, 1, 3, 2])
COEFFICIENTS = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
CLOSE = 1e-5  # fp32 sums in another order, relative to the length of the gradient


def bank_of(base: BaseModel) -> ExpertBank:
    bank = ExpertBank(base, 3, rank=2, alpha=4.0)
    bank.alphas = torch.tensor([4.0, 2.0, 1.0])  # scales differ, so that none can be left out unseen
    return micro_task.perturb(bank)


def one_by_one(bank: ExpertBank, mixing: Mixing, prompts: list[tuple[int, ...]] = PROMPTS) -> tuple[Tensor, Tensor]:
    """Return the gradient of each objective by passes of its own that share nothing, `[K, E, P]`, and values."""
    rows = []
    log_probs = torch.empty(0)
    for column in COEFFICIENTS.unbind(dim=1):
        with bank.using(mixing):
            log_probs = completion_log_probs(bank.base, bank, mixing, prompts, TOKENS, LENGTHS, share_prompts=False)
            (log_probs.sum(dim=1) * column).sum().backward()
        rows.append(bank.take_gradients())
    return torch.stack(rows), log_probs.detach()


def assert_same(got: Tensor, expected: Tensor) -> None:
    assert got.shape == expected.shape
    lengths = expected.norm(dim=-1)
    assert (lengths > 0.1).all()
    assert ((got - expected).norm(dim=-1) <= CLOSE * lengths).all()


@pytest.mark.parametrize("members", [None, (2, 0)], ids=["all", "some"])
def test_gradients_are_those_of_each_objective_alone(any_base: BaseModel, members: tuple[int, ...] | None) -> None:
    bank = bank_of(any_base)
    mixing = Mixing.population(3, 2 if members is None else 3, members)
    expected, values = one_by_one(bank, mixing)
    got, log_probs = weighed_gradients(bank, mixing, PROMPTS, TOKENS, LENGTHS, COEFFICIENTS)
    assert_same(got, expected[:, list(members or range(3))])
    torch.testing.assert_close(log_probs, values, rtol=0, atol=2e-5)


def test_completions_in_parts_by_length_give_the_same(llama: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "PASS_TOKENS", 0)  # more passes cost nothing, so there are some
    parts = []
    divide = scoring.length_parts
    monkeypatch.setattr(module, "length_parts", lambda *each: parts.append(divide(*each)) or parts[-1])
    bank, mixing = bank_of(llama), Mixing.population(3, 2)
    expected, _ = one_by_one(bank, mixing)
    got, _ = weighed_gradients(bank, mixing, PROMPTS, TOKENS, LENGTHS, COEFFICIENTS)
    assert [len(each) for each in parts] == [2]
    assert_same(got, expected)


def test_one_prompt_of_all_completions_and_prompts_of_one_token(base: BaseModel) -> None:
    bank, mixing = bank_of(base), Mixing.population(3, 2)
    for prompts in ([(1, 2, 3)] * 6, [(4,)] * 6):
        expected, _ = one_by_one(bank, mixing, prompts)
        got, _ = weighed_gradients(bank, mixing, prompts, TOKENS, LENGTHS, COEFFICIENTS)
        assert_same(got, expected)


def test_parameters_get_no_gradient_of_their_own(llama: BaseModel) -> None:
    bank = bank_of(llama)
    weighed_gradients(bank, Mixing.population(3, 2), PROMPTS, TOKENS, LENGTHS, COEFFICIENTS)
    assert all(parameter.grad is None for parameter in bank.expert_parameters())


def test_what_cannot_be_told_apart_is_refused(llama: BaseModel) -> None:
    bank = bank_of(llama)
    with pytest.raises(MixingError, match="a captured mixing must be a population"):
        weighed_gradients(bank, Mixing.of_rows(torch.ones(6, 3)), PROMPTS, TOKENS, LENGTHS, COEFFICIENTS)
    with pytest.raises(ShapeError, match=r"coefficients must be \[B, K\], one row for each of the 6 rows"):
        weighed_gradients(bank, Mixing.population(3, 2), PROMPTS, TOKENS, LENGTHS, COEFFICIENTS[1:])
