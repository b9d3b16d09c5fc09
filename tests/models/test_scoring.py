from __future__ import annotations

import pytest
import torch
from torch import Tensor

import micro_task
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.mixing import Mixing
from paretune.models.scoring import completion_log_probs

PROMPTS = [(1, 2, 3), (4,), (1, 2, 3), (4,), (5, 5), (1, 2, 3)]
TOKENS = torch.tensor([[1, 2, 0], [3, 0, 0], [4, 5, 6], [0, 0, 0], [7, 7, 0], [2, 0, 0]])
LENGTHS = torch.tensor([3, 2, 3, 1, 3, 2])
CLOSE = 2e-5  # fp32 sums in another order; gradients are compared relative to their largest entry


def scored(bank: ExpertBank, mixing: Mixing, share: bool) -> tuple[Tensor, Tensor]:
    log_probs = completion_log_probs(bank.base, bank, mixing, PROMPTS, TOKENS, LENGTHS, share_prompts=share)
    (log_probs.sum(dim=1) * torch.arange(1, 7)).sum().backward()
    return log_probs.detach(), bank.take_gradients()


@pytest.mark.parametrize(
    "mixing",
    [
        Mixing.population(3, 2),  # members whose prompts differ in number of distinct ones
        Mixing.population(3, 3, members=(2, 1)),
        Mixing.of_rows(torch.tensor([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]]).repeat(3, 1)),
    ],
    ids=["population", "members", "rows"],
)
def test_prompts_read_once_give_the_same_values_and_gradients(any_base: BaseModel, mixing: Mixing) -> None:
    bank = micro_task.perturb(ExpertBank(any_base, 3, rank=2))
    shared, shared_gradient = scored(bank, mixing, share=True)
    plain, plain_gradient = scored(bank, mixing, share=False)
    torch.testing.assert_close(shared, plain, rtol=0, atol=CLOSE)
    scale = float(plain_gradient.abs().max())
    assert scale > 0.1
    torch.testing.assert_close(shared_gradient / scale, plain_gradient / scale, rtol=0, atol=CLOSE)


def test_values_are_those_of_every_completion_enumerated(llama: BaseModel) -> None:
    bank = micro_task.perturb(ExpertBank(llama, 2, rank=2))
    weights, prompt = [0.4, 0.9], [1, 2, 3]
    listed = micro_task.completions()
    ids = torch.tensor([[*each, 0][:2] for each in listed])
    lengths = torch.tensor([len(each) for each in listed])
    mixing = Mixing.of_rows(torch.tensor([weights] * len(listed)))
    with torch.no_grad():
        got = completion_log_probs(llama, bank, mixing, [prompt] * len(listed), ids, lengths).sum(dim=1)
        expected = micro_task.log_probs(llama, bank, weights, prompt)
    torch.testing.assert_close(got, expected, rtol=0, atol=CLOSE)
    assert float(got.exp().sum()) == pytest.approx(1, abs=1e-5)  # 57 fp32 terms


def test_nothing_behind_the_end_counts(llama: BaseModel) -> None:
    bank = micro_task.perturb(ExpertBank(llama, 3, rank=2))
    mixing = Mixing.of_rows(torch.ones(6, 3))
    with torch.no_grad():
        one = completion_log_probs(llama, bank, mixing, PROMPTS, TOKENS, LENGTHS)
        behind = torch.arange(3)[None, :] >= LENGTHS[:, None]
        other = completion_log_probs(llama, bank, mixing, PROMPTS, torch.where(behind, 7, TOKENS), LENGTHS)
    assert one.equal(other)
    assert not one[behind].any()
    assert (one[~behind] < 0).all()


def test_gradient_checkpointing_reads_every_prompt_and_gives_equal_gradients(llama: BaseModel) -> None:
    bank = micro_task.perturb(ExpertBank(llama, 3, rank=2))
    mixing = Mixing.population(3, 2)
    _, expected = scored(bank, mixing, share=True)
    llama.model.activation_checkpointing_enable()
    llama.model.train()
    try:
        with bank.using(mixing):  # pinned through backward, as the learner does
            _, got = scored(bank, mixing, share=True)
    finally:
        llama.model.activation_checkpointing_disable()
        llama.model.disable_input_require_grads()
        llama.model.eval()
    torch.testing.assert_close(got, expected, rtol=CLOSE, atol=CLOSE * float(expected.abs().max()))
