from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import micro_task
from paretune.models import scoring
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.mixing import Mixing
from paretune.models.scoring import completion_log_probs, token_log_probs

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


class Widest(TorchDispatchMode):
    """Notes the size of the largest fp32 tensor that any operation returns."""

    size = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.dtype == torch.float32:
            self.size = max(self.size, out.numel())
        return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk", [1, 50, 200, 2**22])  # a token, some, rows, all at once
def test_logits_are_read_in_chunks_with_the_values_and_gradients_of_the_formula(
    dtype: torch.dtype, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "CHUNK", chunk)
    draw = torch.Generator().manual_seed(0)
    logits = (torch.randn(5, 4, 20, generator=draw) * 5).to(dtype).requires_grad_()
    ids = torch.randint(0, 20, (5, 4), generator=draw)
    lengths, pull = torch.tensor([4, 1, 2, 3, 4]), torch.randn(5, 4, generator=draw)
    inside = torch.arange(4)[None] < lengths[:, None]
    expected = logits.float().log_softmax(dim=2).gather(2, ids[:, :, None])[:, :, 0] * inside
    (expected * pull).sum().backward()
    wanted, logits.grad = logits.grad, None
    got = token_log_probs(logits, ids, lengths)
    (got * pull).sum().backward()
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(logits.grad, wanted, atol=1e-6, rtol=1e-6 if dtype == torch.float32 else 1e-2)


def test_no_fp32_copy_of_all_logits_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "CHUNK", 64)
    logits = torch.randn(6, 4, 32).bfloat16().requires_grad_()
    with Widest() as seen:
        token_log_probs(logits, torch.ones(6, 4, dtype=torch.long), torch.full((6,), 4)).sum().backward()
    assert seen.size == 64  # two tokens' logits, and the log-probabilities of all 24
