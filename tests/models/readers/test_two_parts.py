from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import micro_task
import reader_oracle
from paretune.core.seeds import row_keys
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel, freeze
from paretune.models.decoding import sample
from paretune.models.loading import load_base
from paretune.models.mixing import Mixing
from paretune.models.readers.reader import Reader
from paretune.models.readers.two_parts import (
    LEAST,
    TwoPartCache,
    attend_in_two_parts,
    group_rows,
    reads_in_two_parts,
)

CLOSE = 1e-5  # fp32, and sums in another order


def test_groups_hold_each_row_at_one_place_of_its_prompt() -> None:
    prompts, groups = group_rows(torch.tensor([4, 2, 4]))
    assert (prompts.tolist(), groups.width, groups.slot.tolist(), groups.owner.tolist()) == (
        [2, 4], 2, [2, 0, 3], [1, 0, 1],
    )  # fmt: skip
    assert groups.place is not None
    assert groups.place[[2, 0, 3]].tolist() == [0, 1, 2]
    values = torch.arange(3.0)[None, :, None]
    assert groups.back(groups.spread(values)).equal(values)


def test_equal_groups_in_order_need_no_places() -> None:
    prompts, groups = group_rows(torch.tensor([0, 0, 1, 1]))
    assert groups.place is None
    assert (prompts.tolist(), groups.width) == ([0, 1], 2)
    assert group_rows(torch.tensor([0, 1, 0, 1]))[1].place is not None  # of equal size, but not in order


@pytest.mark.parametrize("seed", range(20))
def test_at_most_half_of_the_places_stay_empty(seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    crowd = torch.zeros(int(torch.randint(0, 40, (), generator=draws)), dtype=torch.long)
    owner = torch.cat([crowd, torch.randint(0, 9, (12,), generator=draws)])
    owner = owner[torch.randperm(len(owner), generator=draws)]
    prompts, groups = group_rows(owner)
    assert prompts[groups.owner].equal(owner)
    assert len(groups.slot.unique()) == len(owner)  # no place twice
    assert len(prompts) * groups.width <= 2 * len(owner)


def test_a_prompt_of_many_rows_has_several_groups() -> None:
    prompts, groups = group_rows(torch.tensor([0] * 9 + [1, 2, 3]))  # one width for all would be 36 places for 12 rows
    assert (groups.width, prompts.tolist()) == (3, [0, 0, 0, 1, 2, 3])


def plain_attention(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """Of one row and one query head, written out."""
    return (scale * keys @ query).softmax(dim=0) @ values


@pytest.mark.parametrize("each", [1, 3])  # query heads of a key head
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("owner", [[0, 0, 1, 1], [1, 0, 1, 1, 1], [0] * 9 + [1, 2, 3]])
def test_two_parts_are_one_softmax_over_both(each: int, padded: bool, owner: list[int]) -> None:
    draws = torch.Generator().manual_seed(0)
    heads, size, length, tokens, rows = 2, 4, 5, 3, len(owner)
    prompts, groups = group_rows(torch.tensor(owner))
    count = max(owner) + 1
    prompt = tuple(torch.randn(heads, count, length, size, generator=draws) for _ in range(2))
    own = tuple(torch.randn(heads, rows, tokens, size, generator=draws) for _ in range(2))
    query = 30 * torch.randn(rows, heads * each, 1, size, generator=draws)  # sharp: a sum of two softmaxes is far off
    missing = torch.arange(count) % 3 if padded else torch.zeros(count, dtype=torch.long)  # on the left
    bias = torch.zeros(heads, count, 1, length)
    for number, first in enumerate(missing.tolist()):
        bias[:, number, :, :first] = -torch.inf
    keys, values = (part[:, prompts] for part in prompt)
    got = attend_in_two_parts(
        query, (keys, values), (own[0], own[1]), groups, 0.5, bias[:, prompts] if padded else None
    )
    assert got.shape == (rows, 1, heads * each, size)
    for row, number in enumerate(owner):
        for head in range(heads * each):
            seen = (
                torch.cat([part[head // each, number, missing[number] :], mine[head // each, row]])
                for part, mine in zip(prompt, own, strict=True)
            )
            expected = plain_attention(query[row, head, 0], *seen, 0.5)
            torch.testing.assert_close(got[row, 0, head], expected, atol=CLOSE, rtol=0)


def grouped(folder: Path) -> BaseModel:
    """Return a model of four query heads for two of keys."""
    return load_base(str(micro_task.save_model(folder, num_attention_heads=4, num_key_value_heads=2)), device="cpu")


@torch.no_grad()
def test_unequal_groups_of_a_population_go_on_as_themselves(tmp_path: Path) -> None:
    base = grouped(tmp_path / "model")
    assert base.model.config.num_key_value_heads < base.model.config.num_attention_heads
    bank = micro_task.perturb(ExpertBank(base, 2, rank=2), scale=0.15)
    prompts = [[1, 2], [1, 2], [1, 2], [4, 5, 6], [4, 5, 6], [7]] * 2
    reader = Reader(base, bank, Mixing.population(2, 6))
    tokens: list[list[int]] = [[] for _ in prompts]
    with reader_oracle.two_parts_at(0):
        past, logits = reader.prefill(prompts, 8)
    rows = list(range(len(prompts)))
    # one prompt loses all its rows, an expert's groups differ from the other's, and at last two rows are left
    for keep in (range(12), [0, 1, 3, 6, 9, 10], [0, 2, 4, 5], [1, 3]):
        if len(keep) < len(rows):
            reader.take(past, torch.tensor(list(keep)))
            rows, logits = [rows[place] for place in keep], logits[list(keep)]
        for row, got in zip(rows, logits, strict=True):
            alone = Reader(base, bank, reader.mixing.rows(torch.tensor([row])))
            ids = torch.tensor([[*prompts[row], *tokens[row]]])
            expected = alone.whole(ids, torch.ones_like(ids).bool(), keep=1)[0, -1]
            torch.testing.assert_close(got.log_softmax(dim=0), expected.log_softmax(dim=0), atol=CLOSE, rtol=0)
        new = torch.tensor([1 + (row + len(tokens[row])) % 7 for row in rows])
        for row, token in zip(rows, new.tolist(), strict=True):
            tokens[row].append(token)
        logits = reader.extend(past, new)
    bank.unwrap()


@torch.no_grad()
def test_keys_of_a_prompt_are_held_once(llama: BaseModel) -> None:
    reader = Reader(llama, None, Mixing.reference(6))
    with reader_oracle.two_parts_at(0):
        past, _ = reader.prefill([[1, 2], [1, 2], [3], [1, 2], [3], [5]], 4)
    assert isinstance(past.cache, TwoPartCache)
    assert [layer.prompt[0].shape[1] for layer in past.cache.parts] == [3, 3]
    assert past.cache.get_seq_length() == 2
    reader.extend(past, torch.tensor([1, 2, 3, 4, 5, 6]))
    assert past.cache.get_seq_length() == 3
    reader.take(past, torch.tensor([0, 1, 3]))
    assert [layer.prompt[0].shape[1] for layer in past.cache.parts] == [1, 1]  # prompts without rows are let go
    assert llama.model.config._attn_implementation == "sdpa"


def test_where_prompts_are_long_enough_they_are_held_once(llama: BaseModel) -> None:
    width = llama.model.config.num_key_value_heads * llama.model.config.hidden_size
    width //= llama.model.config.num_attention_heads
    rows = -(-LEAST // (4 * width))  # of four tokens
    for count, two_parts in ((rows, True), (rows - 1, False)):
        past, _ = Reader(llama, None, Mixing.reference(count)).prefill([[1, 2, 3, 4]] * count, 1)
        assert isinstance(past.cache, TwoPartCache) == two_parts


def test_other_attention_is_read_with_repeated_prompts(folders: dict[str, Path]) -> None:
    for kind, plain in (("llama", True), ("gpt2", True), ("qwen2", True), ("mistral", False), ("falcon", False)):
        base = load_base(str(folders[kind]), device="cpu")
        assert reads_in_two_parts(base, LEAST) == plain
    half = load_base(str(folders["llama"]), device="cpu", dtype=torch.bfloat16)
    assert not reads_in_two_parts(half, LEAST)


def capped() -> BaseModel:
    """Return a model of a kind that caps its scores."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    config: Any = Gemma2Config(
        vocab_size=8, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, attn_logit_softcapping=0.5, layer_types=["full_attention"] * 2,
        attn_implementation="eager",
    )  # fmt: skip
    return freeze(BaseModel("gemma2", "", Gemma2ForCausalLM(config), None))


@torch.no_grad()
def test_capped_scores_stay_capped() -> None:
    base = capped()
    assert not reads_in_two_parts(base, LEAST)
    base.pad_id, base.end_ids = 0, (0,)
    prompts = [[1, 2, 3], [1, 2, 3], [4, 5, 6]]
    with reader_oracle.two_parts_at(0):
        keys = row_keys([0] * 3, 0, list(range(3)), [0] * 3)
        rollout = sample(base, None, prompts, Mixing.reference(3), keys, 3, end_ids=())
    for row, prompt in enumerate(prompts):
        ids = torch.tensor([[*prompt, *rollout.token_ids[row].tolist()]])
        whole = base.model(ids).logits[0, 2:-1].log_softmax(dim=1)
        expected = whole.gather(1, rollout.token_ids[row][:, None])[:, 0]
        torch.testing.assert_close(rollout.log_probs[row], expected, atol=CLOSE, rtol=0)
