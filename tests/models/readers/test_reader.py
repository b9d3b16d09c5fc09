from __future__ import annotations

import pytest
import torch

import micro_task
import reader_oracle
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.mixing import Mixing
from paretune.models.readers import two_parts
from paretune.models.readers.inputs import causal, distinct, left_pad, positions_of
from paretune.models.readers.reader import Reader
from reader_oracle import CLOSE, PROMPTS, ROWS

EXPERTS = 3
WEIGHTS = reader_oracle.weights_of(ROWS, EXPERTS)
LEVELS = {
    "adapters": Mixing.of_rows(WEIGHTS),
    "log_probs": Mixing.of_log_probs(WEIGHTS * 0.9),
    "hidden": Mixing.of_hidden_states(WEIGHTS, 0),
}


def bank_of(base: BaseModel) -> ExpertBank:
    return micro_task.perturb(ExpertBank(base, EXPERTS, rank=2), scale=0.15)


@torch.no_grad()
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("least", [0, two_parts.LEAST])
def test_what_is_read_bit_by_bit_is_what_is_read_whole(
    blockwise: BaseModel, level: str, share: bool, least: int
) -> None:
    """Rows that leave, change places and come twice go on as themselves."""
    mixing = LEVELS[level]
    bank = bank_of(blockwise)
    reader = Reader(blockwise, bank, mixing)
    with reader_oracle.two_parts_at(least):
        past, first = reader.prefill(PROMPTS, 3, share)
    assert isinstance(past.cache, two_parts.TwoPartCache) == (least == 0)
    second = reader.extend(past, torch.tensor([1, 2, 3, 4, 5, 6]))
    reader.take(past, torch.tensor([5, 1, 1]))
    third = reader.extend(past, torch.tensor([7, 1, 2]))
    assert past.tokens == max(len(prompt) for prompt in PROMPTS) + 2
    for logits, rows, behind in (
        (first, range(ROWS), [[]] * ROWS),
        (second, range(ROWS), [[1], [2], [3], [4], [5], [6]]),
        (third, [5, 1, 1], [[6, 7], [2, 1], [2, 2]]),
    ):
        for got, row, tokens in zip(logits, rows, behind, strict=True):
            alone = Reader(blockwise, bank, mixing.rows(torch.tensor([row])))
            ids = torch.tensor([[*PROMPTS[row], *tokens]])
            expected = alone.whole(ids, torch.ones_like(ids).bool(), keep=1)[0, -1]
            torch.testing.assert_close(got.log_softmax(dim=0), expected.log_softmax(dim=0), atol=CLOSE, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("level", LEVELS)
def test_equal_prompts_are_read_once(llama: BaseModel, level: str) -> None:
    same = LEVELS[level].rows(torch.tensor([0, 1, 2, 0, 4, 5]))  # the fourth row is the first one again, in all
    reader = Reader(llama, bank_of(llama), same)
    seen = []
    hook = llama.model.get_input_embeddings().register_forward_hook(lambda *given: seen.append(len(given[1][0])))
    reader.prefill(PROMPTS, 1)
    reader.prefill(PROMPTS, 1, share=False)
    reader.heads(PROMPTS)
    hook.remove()
    streams = reader.level.widest
    assert seen == [5 * streams, 6 * streams, 5 * streams]


@torch.no_grad()
def test_prompts_of_one_token_have_an_empty_head(base: BaseModel) -> None:
    bank, ids = bank_of(base), torch.tensor([[1, 2], [3, 4]])
    for prompts in ([[3], [5]], [[3], [1, 2, 6]]):
        reader = Reader(base, bank, LEVELS["adapters"].rows(torch.tensor([0, 1])))
        heads, rows = reader.heads(prompts), torch.tensor([0, 1])
        got = heads.completion_logits(rows, ids, reader.mixing, heads.states(rows))
        for row in (0, 1):
            whole = torch.tensor([[*prompts[row], *ids[row].tolist()]])
            alone = Reader(base, bank, reader.mixing.rows(torch.tensor([row])))
            expected = alone.whole(whole, torch.ones_like(whole).bool(), keep=3)[0, :-1]
            torch.testing.assert_close(got[row], expected, atol=1e-4, rtol=0)  # logits of size 10


def test_rows_are_padded_on_the_left_and_positions_count_real_tokens(llama: BaseModel) -> None:
    ids, real = left_pad(llama, [[5, 6, 7], [4], []])
    assert ids.tolist() == [[5, 6, 7], [0, 0, 4], [0, 0, 0]]
    assert real.tolist() == [[True] * 3, [False, False, True], [False] * 3]
    assert positions_of(real).tolist() == [[0, 1, 2], [0, 0, 0], [0, 0, 0]]


def test_a_mask_shows_earlier_real_tokens_and_the_position_itself() -> None:
    mask = causal(torch.tensor([[False, True, True]]), 2)
    assert mask.tolist() == [[[[False, True, False], [False, True, True]]]]
    padded = causal(torch.tensor([[False, True, True]]), 3)
    assert padded[0, 0, 0].tolist() == [True, False, False]  # a softmax over nothing is NaN


def test_prompts_are_distinct_where_they_or_their_keys_differ() -> None:
    assert distinct([[1], [1], [2], [1]], [b"a", b"b", b"a", b"a"]) == ([0, 1, 2], [0, 1, 2, 0])
    assert distinct([], []) == ([], [])
