"""Gradients of several objectives from one backward pass, held against a backward pass for each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

import micro_task
from paretune.core.errors import MixingError, ShapeError
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.mixing import Mixing
from paretune.models.scoring import completion_log_probs

PROMPTS = [(1, 2, 3), (4,), (1, 2, 3), (4,), (5, 5), (1, 2, 3)]
TOKENS = torch.tensor([[1, 2, 0], [3, 0, 0], [4, 5, 6], [0, 0, 0], [7, 7, 0], [2, 0, 0]])
LENGTHS = torch.tensor([3, 2, 3, 1, 3, 2])
COEFFICIENTS = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
CLOSE = 1e-5  # fp32 sums in another order, relative to the length of the gradient


def bank_of(base: BaseModel, experts: int = 3) -> ExpertBank:
    bank = ExpertBank(base, experts, rank=2, alpha=4.0)
    bank.alphas = torch.tensor([4.0, 2.0, 1.0][:experts])  # scales differ, so that none can be left out unseen
    return micro_task.perturb(bank)


def scored(bank: ExpertBank, mixing: Mixing, share: bool = False) -> Tensor:
    return completion_log_probs(bank.base, bank, mixing, PROMPTS, TOKENS, LENGTHS, share_prompts=share).sum(dim=1)


def one_by_one(bank: ExpertBank, mixing: Mixing) -> Tensor:
    """Return the gradient of each objective by a forward and a backward pass of its own, `[K, E, P]`."""
    rows = []
    for column in COEFFICIENTS.unbind(dim=1):
        with bank.using(mixing):
            (scored(bank, mixing) * column).sum().backward()
        rows.append(bank.take_gradients())
    return torch.stack(rows)


def captured(bank: ExpertBank, mixing: Mixing) -> Tensor:
    with bank.capturing(mixing, COEFFICIENTS) as capture:
        scored(bank, mixing).sum().backward()
    return capture.gradients


def assert_same(got: Tensor, expected: Tensor) -> None:
    assert got.shape == expected.shape
    lengths = expected.norm(dim=-1)
    assert (lengths > 0.1).all()
    assert ((got - expected).norm(dim=-1) <= CLOSE * lengths).all()


@contextmanager
def checkpointing(base: BaseModel) -> Iterator[None]:
    base.model.activation_checkpointing_enable()
    base.model.train()
    try:
        yield
    finally:
        base.model.activation_checkpointing_disable()
        base.model.disable_input_require_grads()
        base.model.eval()


def test_one_pass_gives_the_gradients_of_all_objectives(base: BaseModel) -> None:
    bank, mixing = bank_of(base), Mixing.population(3, 2)
    assert_same(captured(bank, mixing), one_by_one(bank, mixing))


def test_members_come_in_the_order_of_the_population(base: BaseModel) -> None:
    bank, mixing = bank_of(base), Mixing.population(3, 3, members=(2, 0))
    assert_same(captured(bank, mixing), one_by_one(bank, mixing)[:, [2, 0]])


def test_one_expert_is_a_population_of_one(base: BaseModel) -> None:
    bank, mixing = bank_of(base, experts=1), Mixing.population(1, 6)
    assert_same(captured(bank, mixing), one_by_one(bank, mixing))


def test_gradient_checkpointing_captures_what_is_computed_again(llama: BaseModel) -> None:
    bank, mixing = bank_of(llama), Mixing.population(3, 2)
    expected = one_by_one(bank, mixing)
    passes: list[object] = []
    hook = llama.model.model.layers[0].self_attn.register_forward_hook(lambda *_: passes.append(None))
    with checkpointing(llama):
        got = captured(bank, mixing)
    hook.remove()
    assert len(passes) == 2  # read, and read again on the way back
    assert_same(got, expected)


def test_values_do_not_change_and_parameters_get_no_gradient(llama: BaseModel) -> None:
    bank, mixing = bank_of(llama), Mixing.population(3, 2)
    with bank.using(mixing):
        expected = scored(bank, mixing)
        (2 * expected).sum().backward()
    before = [parameter.grad.clone() for parameter in bank.expert_parameters() if parameter.grad is not None]
    with bank.capturing(mixing, COEFFICIENTS):
        values = scored(bank, mixing)
        values.sum().backward()
    assert values.equal(expected)
    for parameter, gradient in zip(bank.expert_parameters(), before, strict=True):
        assert parameter.grad is not None
        assert parameter.grad.equal(gradient)


def test_nothing_is_captured_behind_the_context(llama: BaseModel) -> None:
    bank, mixing = bank_of(llama), Mixing.population(3, 2)
    with bank.capturing(mixing, COEFFICIENTS) as capture:
        scored(bank, mixing).sum().backward()
    first = capture.gradients.clone()
    with bank.using(mixing):
        scored(bank, mixing).sum().backward()
    assert capture.gradients.equal(first)
    assert bank.take_gradients().any()


def test_several_passes_add_up(llama: BaseModel) -> None:
    bank, mixing = bank_of(llama), Mixing.population(3, 2)
    once = captured(bank, mixing)
    with bank.capturing(mixing, COEFFICIENTS) as capture:
        for _ in range(2):
            scored(bank, mixing).sum().backward()
    torch.testing.assert_close(capture.gradients, 2 * once)


def test_passes_without_gradients_are_left_alone(llama: BaseModel) -> None:
    bank, mixing = bank_of(llama), Mixing.population(3, 2)
    with bank.capturing(mixing, COEFFICIENTS), torch.no_grad():
        inside = scored(bank, mixing, share=True)
    with torch.no_grad():
        assert inside.equal(scored(bank, mixing, share=True))


def test_what_one_pass_cannot_tell_apart_is_refused(llama: BaseModel) -> None:
    bank, mixing = bank_of(llama), Mixing.population(3, 2)
    message = r"must see all 6 rows of its mixing at once, .* Score with share_prompts=False"
    with bank.capturing(mixing, COEFFICIENTS), pytest.raises(MixingError, match=message):
        scored(bank, mixing, share=True)
    rows = Mixing.of_rows(torch.ones(6, 3))
    with pytest.raises(MixingError, match="a captured mixing must be a population"), bank.capturing(rows, COEFFICIENTS):
        pass
    with (
        pytest.raises(ShapeError, match=r"coefficients must be \[B, K\], one row for each of the 6 .* got \[5, 3\]"),
        bank.capturing(mixing, COEFFICIENTS[1:]),
    ):
        pass
    with (
        bank.capturing(mixing, COEFFICIENTS) as capture,
        pytest.raises(MixingError, match="must be read after a backward pass, got none"),
    ):
        _ = capture.gradients
