from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import micro_task
from paretune.models.bank import ExpertBank
from paretune.models.loading import load_base
from paretune.models.mixing import Mixing
from paretune.models.readers.copies import copies
from paretune.models.readers.few_keys import MOST_KEYS, NAME, attend, attending, softmax
from paretune.models.readers.inputs import causal
from paretune.models.readers.reader import Reader

CLOSE = 1e-5  # fp32, and sums in another order


@pytest.mark.parametrize("width", [1, 7, MOST_KEYS, MOST_KEYS + 1])
def test_a_softmax_over_few_is_that_of_torch(width: int) -> None:
    scores = 200 * torch.randn(6, 3, width, generator=torch.Generator().manual_seed(0))  # exp of them overflows
    scores[0, 0, 1:] = -torch.inf
    torch.testing.assert_close(softmax(scores), scores.softmax(dim=-1), atol=CLOSE, rtol=0)


def learning(rows: int, heads: int, steps: int) -> Tensor:
    return torch.randn(rows, heads, steps, 8, requires_grad=True)


@pytest.mark.parametrize("each", [1, 3])  # query heads of a key head
def test_attention_to_few_keys_is_that_of_torch(each: int) -> None:
    torch.manual_seed(0)
    query, key, value = learning(5, 2 * each, 4), learning(5, 2, 9), learning(5, 2, 9)
    real = torch.ones(5, 9, dtype=torch.bool)
    real[1, :3] = False  # padding on the left
    mask = causal(real, 4)
    wanted = nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=0.3, enable_gqa=True
    ).transpose(1, 2)
    added = torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)
    got, _ = attend(nn.Identity(), query, key, value, added, scaling=0.3)
    torch.testing.assert_close(got, wanted, atol=CLOSE, rtol=0)
    backwards = torch.randn(wanted.shape)
    made, expected = (torch.autograd.grad(each, (query, key, value), backwards) for each in (got, wanted))
    for one, other in zip(made, expected, strict=True):
        torch.testing.assert_close(one, other, atol=CLOSE, rtol=0)


def test_gradients_of_attention_are_those_of_small_steps() -> None:
    torch.manual_seed(0)
    parts = [torch.randn(2, 2, steps, 3, dtype=torch.float64, requires_grad=True) for steps in (2, 4, 4)]
    added = torch.zeros(2, 1, 2, 4, dtype=torch.float64)
    added[:, :, 0, 3] = -torch.inf

    def attended(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attend(nn.Identity(), query, key, value, added, scaling=0.7)[0]

    assert torch.autograd.gradcheck(attended, parts)


def test_a_model_attends_by_products_only_while_it_reads(tmp_path: Path) -> None:
    base = load_base(str(micro_task.save_model(tmp_path / "model")), device="cpu")
    before = base.model.config._attn_implementation
    few, many = ({"attention_mask": torch.ones(1, 1, 2, keys, dtype=torch.bool)} for keys in (4, MOST_KEYS + 1))
    with attending(base, few) as given:
        assert base.model.config._attn_implementation == NAME
        assert given["attention_mask"].equal(torch.zeros(1, 1, 2, 4))
    with attending(base, many) as given:
        assert base.model.config._attn_implementation == before
        assert given is many
    with torch.autocast("cpu"), attending(base, few) as given:  # products would lose digits that a softmax needs
        assert given is few
    assert base.model.config._attn_implementation == before


def test_a_completion_read_by_products_is_one_read_by_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load_base(str(micro_task.save_model(tmp_path / "model")), device="cpu")
    bank = micro_task.perturb(ExpertBank(base, 2, rank=2), scale=0.15)
    prompts = [[1, 2], [4, 5, 6], [1, 2], [7]] * 2
    token_ids = torch.tensor([[3, 1, 2], [1, 1, 4]] * 4)
    read = []
    for most in (MOST_KEYS, 0):
        monkeypatch.setattr("paretune.models.readers.few_keys.MOST_KEYS", most)
        reader = Reader(base, bank, Mixing.population(2, 4))
        heads, rows = reader.heads(prompts), torch.arange(8)
        logits = heads.completion_logits(rows, token_ids, reader.mixing, heads.states(rows))
        factors = [each for layer in bank.layers.values() for each in (layer.A, layer.B)]
        read.append((logits, *torch.autograd.grad(logits.square().sum(), factors)))
    for one, other in zip(*read, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert not read[0][0].equal(read[1][0])  # so the two ways are two


def test_gradients_of_copies_add_up() -> None:
    rows, index = torch.randn(3, 2, 4, 5, requires_grad=True), torch.tensor([2, 0, 2, 2])
    made = copies(rows, index)
    assert made.equal(rows[index])
    joined = torch.cat([made, torch.randn(4, 2, 3, 5)], dim=2)
    (got,) = torch.autograd.grad(joined[:, :, :4].square().sum(), rows)
    (wanted,) = torch.autograd.grad(rows[index].square().sum(), rows)
    torch.testing.assert_close(got, wanted)
