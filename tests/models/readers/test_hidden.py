from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
import torch
from torch import Tensor

import micro_task
import reader_oracle
from paretune.core.errors import ModelError, ShapeError
from paretune.core.model_config import BLOCKWISE
from paretune.core.protocols import Continued, Norm
from paretune.core.seeds import row_keys
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.decoding import sample
from paretune.models.mixing import Mixing
from paretune.models.readers.hidden import FINAL_NORM
from paretune.models.readers.reader import Reader
from paretune.models.scoring import completion_log_probs
from reader_oracle import CLOSE, NEW, PROMPTS, ROWS

EXPERTS = 3
WEIGHTS = {
    "on the simplex": reader_oracle.weights_of(ROWS, EXPERTS),
    "corners": torch.eye(EXPERTS)[[0, 2, 1, 0, 2, 2]],
    "in the cube": torch.tensor([[1.0, 0.5, 0.25], [0.5, 1.0, 1.0]] * (ROWS // 2)),
}
IDS, LENGTHS = torch.tensor([[1, 2, 3]] * ROWS), torch.tensor([3, 1, 2, 3, 3, 2])


def bank_of(base: BaseModel) -> ExpertBank:
    return micro_task.perturb(ExpertBank(base, EXPERTS, rank=2), scale=0.15)  # stronger ones amplify rounding


@contextmanager
def replaced(block: Any, states: list[Tensor], state: Tensor | None = None) -> Iterator[None]:
    """Note what leaves a block, and let another state leave it instead."""

    def hook(module: Any, args: Any, hidden: Tensor) -> Tensor:
        states.append(hidden)
        return hidden if state is None else state

    handle = block.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def by_hand(
    base: BaseModel, bank: ExpertBank, weights: Tensor, block: int, behind: Tensor, ids: list[int], scale: float = 1.0
) -> Tensor:
    """Run each expert alone up to a block, then one plain pass in which the mixed state leaves it; `[V]`."""
    states: list[Tensor] = []
    for one_hot in [*torch.eye(EXPERTS), torch.zeros(EXPERTS)]:
        with replaced(bank.blocks[block], states):
            reader_oracle.logits(base, bank, one_hot, ids)
    shares = [*(scale * weights), 1 - scale]
    mixed = sum((share * state for share, state in zip(shares, states, strict=True)), torch.zeros(()))
    with replaced(bank.blocks[block], [], mixed):
        return reader_oracle.logits(base, bank, behind, ids).log_softmax(dim=0)


def test_all_kinds_whose_hidden_states_are_mixed_have_a_final_norm_to_mix_after() -> None:
    assert tuple(FINAL_NORM) == BLOCKWISE


@pytest.mark.parametrize(
    ("name", "block", "continued"),
    [
        ("on the simplex", 0, "base"),
        pytest.param("in the cube", 0, "soup", marks=pytest.mark.slow),
        pytest.param("in the cube", None, "base", marks=pytest.mark.slow),
        ("on the simplex", None, "soup"),
        pytest.param("corners", 0, "base", marks=pytest.mark.slow),
    ],
)
def test_each_reader_mixes_the_states_behind_the_block(
    blockwise: BaseModel, name: str, block: int | None, continued: Continued
) -> None:
    bank, weights = bank_of(blockwise), WEIGHTS[name]

    def oracle(row: int, ids: list[int]) -> Tensor:
        behind = weights[row] if continued == "soup" else torch.zeros(EXPERTS)
        return by_hand(blockwise, bank, weights[row], 1 if block is None else block, behind, ids)

    reader_oracle.check(blockwise, bank, Mixing.of_hidden_states(weights, block, continued), oracle)


@pytest.mark.parametrize("continued", ["soup", pytest.param("base", marks=pytest.mark.slow)])
def test_a_scale_gives_the_base_models_states_what_it_takes_from_the_experts(
    base: BaseModel, continued: Continued
) -> None:
    bank, weights, scale = bank_of(base), WEIGHTS["in the cube"], torch.linspace(0, 1, ROWS)

    def oracle(row: int, ids: list[int]) -> Tensor:
        if row == 0:
            return reader_oracle.logits(base, bank, torch.zeros(EXPERTS), ids).log_softmax(
                dim=0
            )  # the base model exactly
        behind = scale[row] * weights[row] if continued == "soup" else torch.zeros(EXPERTS)
        return by_hand(base, bank, weights[row], 0, behind, ids, float(scale[row]))

    reader_oracle.check(base, bank, Mixing.of_hidden_states(weights, 0, continued, scale), oracle)


@torch.no_grad()
@pytest.mark.parametrize("block", [0, 1])
def test_one_expert_continued_by_its_own_soup_is_that_expert(blockwise: BaseModel, block: int) -> None:
    bank, keys = bank_of(blockwise), row_keys([0] * ROWS, 0, list(range(ROWS)), [0] * ROWS)
    one = torch.eye(EXPERTS)[[1] * ROWS]
    mixed = sample(blockwise, bank, PROMPTS, Mixing.of_hidden_states(one, block, "soup"), keys, NEW)
    alone = sample(blockwise, bank, PROMPTS, Mixing.population(EXPERTS, ROWS, (1,)), keys, NEW)
    assert mixed.token_ids.equal(alone.token_ids)
    torch.testing.assert_close(mixed.log_probs, alone.log_probs, atol=CLOSE, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("block", [0, 1])
def test_one_expert_continued_by_the_base_model_acts_up_to_the_block_only(blockwise: BaseModel, block: int) -> None:
    bank = bank_of(blockwise)
    one = torch.eye(EXPERTS)[[1] * ROWS]
    mixed = completion_log_probs(blockwise, bank, Mixing.of_hidden_states(one, block), PROMPTS, IDS, LENGTHS)
    whole = completion_log_probs(blockwise, bank, Mixing.of_rows(one), PROMPTS, IDS, LENGTHS)
    later = [layer for part in list(bank.blocks)[block + 1 :] for layer in bank.layers.values()
             if layer in set(part.modules())]  # fmt: skip
    assert bool(later) == (block == 0)
    for layer in later:
        layer.B.zero_()
    cut = completion_log_probs(blockwise, bank, Mixing.of_rows(one), PROMPTS, IDS, LENGTHS)
    torch.testing.assert_close(mixed, cut, atol=CLOSE, rtol=0)
    assert (cut - whole).abs().max() > 0.01 or not later


@torch.no_grad()
def test_last_states_mixed_behind_the_final_norm_are_mixed_log_probabilities(base: BaseModel) -> None:
    """`H sum_e g_e h_e = sum_e g_e (H h_e)`: one head without bias, weights that sum to one."""
    bank, weights = bank_of(base), WEIGHTS["on the simplex"]
    states = []
    for one_hot in torch.eye(EXPERTS):
        with bank.using(Mixing.of_rows(one_hot[None])):
            states.append(base.model.base_model(torch.tensor([[1, 2, 3]]), use_cache=False).last_hidden_state[0, -1])
    by_states = base.model.get_output_embeddings()(weights @ torch.stack(states)).log_softmax(dim=1)
    reader = Reader(base, bank, Mixing.of_log_probs(weights))
    ids = torch.tensor([[1, 2, 3]] * ROWS)
    by_log_probs = reader.whole(ids, torch.ones_like(ids, dtype=torch.bool), keep=1)[:, 0].log_softmax(dim=1)
    torch.testing.assert_close(by_states, by_log_probs, atol=CLOSE, rtol=0)


@torch.no_grad()
def test_last_states_mixed_before_the_final_norm_are_logits_mixed_with_weights_of_their_own(base: BaseModel) -> None:
    """`H norm(sum g_e u_e) = sum_e c_e z_e + H b (1 - sum c)`, `c_e = g_e size(u_e) / size(sum_j g_j u_j)`.

    size is the root mean square of an RMS norm, the standard deviation of a layer norm, whose bias is b.
    """
    bank, weights = bank_of(base), WEIGHTS["in the cube"]
    kind = base.model.config.model_type
    norm = base.model.model.norm if kind == "llama" else base.model.transformer.ln_f
    kept = {name: value.clone() for name, value in norm.state_dict().items()}
    norm.weight.copy_(torch.linspace(0.5, 1.5, 16))
    if kind == "gpt2":
        norm.bias.copy_(torch.linspace(-1, 1, 16))
    try:
        states: list[Tensor] = []
        logits = []
        for one_hot in torch.eye(EXPERTS):
            with replaced(bank.blocks[-1], states):
                logits.append(reader_oracle.logits(base, bank, one_hot, [1, 2, 3]))
        last = torch.stack(states)[:, 0, -1]  # [E, H]
        ids = torch.tensor([[1, 2, 3]] * ROWS)
        got = Reader(base, bank, Mixing.of_hidden_states(weights)).whole(ids, torch.ones_like(ids).bool(), keep=1)[:, 0]

        def size(state: Tensor) -> Tensor:
            return state.square().mean(dim=-1).sqrt() if kind == "llama" else state.std(dim=-1, correction=0)

        own = weights * size(last) / size(weights @ last)[:, None]  # [ROWS, E]
        expected = own @ torch.stack(logits)
        if kind == "gpt2":
            expected += (1 - own.sum(dim=1, keepdim=True)) * base.model.lm_head(norm.bias)
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)  # the norms add 1e-5 or 1e-6 to a square
        assert (own.sum(dim=1) - 1).abs().max() > 0.01  # it is no mixing of log-probabilities
    finally:
        norm.load_state_dict(kept)


@torch.no_grad()
def test_layers_keep_a_row_a_stream_up_to_the_block_and_one_row_behind_it(blockwise: BaseModel) -> None:
    reader = Reader(blockwise, bank_of(blockwise), Mixing.of_hidden_states(WEIGHTS["on the simplex"], 0))
    past, _ = reader.prefill(PROMPTS, NEW)
    assert [len(layer.keys) for layer in past.cache.layers] == [EXPERTS * ROWS, ROWS]
    reader.extend(past, torch.ones(ROWS, dtype=torch.long))
    reader.take(past, torch.tensor([4, 1]))
    reader.extend(past, torch.ones(2, dtype=torch.long))
    assert [len(layer.keys) for layer in past.cache.layers] == [EXPERTS * 2, 2]


@pytest.mark.parametrize(
    ("block", "weights", "scale", "cost"),
    [
        (0, [[0.2, 0.3, 0.5]], None, 2.0),  # three streams in one of two blocks, one in the other
        (1, [[0.2, 0.3, 0.5]], None, 3.0),
        (0, [[0.5, 0.5, 0.0]], None, 1.5),
        (0, [[0.5, 0.5, 0.0]], [0.5], 2.0),  # and one of the base model
        (0, [[0.5, 0.5, 0.5]], None, 2.0),  # which has no part where the weights do not sum to one
        (1, [[0.0, 1.0, 0.0]], None, 1.0),
    ],
)
def test_a_token_costs_a_pass_for_each_stream_up_to_the_block_and_one_behind_it(
    llama: BaseModel, block: int, weights: list[list[float]], scale: list[float] | None, cost: float
) -> None:
    scales = None if scale is None else torch.tensor(scale)
    mixing = Mixing.of_hidden_states(torch.tensor(weights), block, scale=scales)
    assert Reader(llama, bank_of(llama), mixing).cost == cost


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("continued", ["base", "soup"])
def test_scoring_and_its_gradients_agree_under_checkpointing(
    blockwise: BaseModel, continued: Continued, reentrant: bool
) -> None:
    bank, mixing = bank_of(blockwise), Mixing.of_hidden_states(WEIGHTS["in the cube"], 0, continued)

    def scored() -> tuple[Tensor, Tensor]:
        log_probs = completion_log_probs(blockwise, bank, mixing, PROMPTS, IDS, LENGTHS)
        log_probs.sum().backward()
        return log_probs.detach(), bank.take_gradients()

    plain, gradients = scored()
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    hook = next(iter(bank.layers.values())).register_forward_hook(count)
    with reader_oracle.recomputing(blockwise, reentrant):
        again, recomputed = scored()
    hook.remove()
    assert calls == 2  # forward, and again inside backward
    torch.testing.assert_close(again, plain, atol=CLOSE, rtol=0)
    torch.testing.assert_close(recomputed, gradients, rtol=1e-4, atol=1e-4 * float(gradients.abs().max()))
    assert gradients.abs().sum(dim=1).bool().all()


def test_other_kinds_of_models_and_blocks_that_are_not_there_are_refused(any_base: BaseModel) -> None:
    bank, kind = bank_of(any_base), any_base.model.config.model_type
    mixing = Mixing.of_hidden_states(torch.ones(1, EXPERTS), 2)
    if kind in ("llama", "gpt2"):
        with pytest.raises(ModelError, match=r"block must be one of the model's 2 blocks, 0 to 1 or, .* got 2 for"):
            Reader(any_base, bank, mixing)
    else:
        message = rf"a kind whose hidden states can be mixed \(gpt2, llama, qwen2\), got model_type '{kind}' in"
        with pytest.raises(ModelError, match=message):
            Reader(any_base, bank, mixing)


def test_a_scale_must_be_one_finite_number_a_row() -> None:
    with pytest.raises(ShapeError, match=r"scale must be finite, one per row \(2\), got \[1.0\]"):
        Mixing.of_hidden_states(torch.ones(2, 2), scale=torch.ones(1))


def test_rows_of_one_product_of_scale_and_weights_are_told_apart() -> None:
    mixing = Mixing.of_hidden_states(torch.tensor([[0.5], [1.0]]), scale=torch.tensor([1.0, 0.5]))
    assert len(set(mixing.group_keys())) == len(set(mixing.group_keys(gated=False))) == 2


@pytest.mark.parametrize("name", ["on the simplex", pytest.param("corners", marks=pytest.mark.slow)])
def test_each_reader_mixes_states_after_the_final_norm_which_is_mixing_log_probabilities(
    blockwise: BaseModel, name: str
) -> None:
    """The head has no bias and weights sum to one, so `H sum_e g_e h_e = sum_e g_e z_e`."""
    bank, weights = bank_of(blockwise), WEIGHTS[name]

    def oracle(row: int, ids: list[int]) -> Tensor:
        each = [reader_oracle.logits(blockwise, bank, one_hot, ids) for one_hot in torch.eye(EXPERTS)]
        return (weights[row] @ torch.stack(each)).log_softmax(dim=0)

    mixing = Mixing.of_hidden_states(weights, norm="after")
    assert Reader(blockwise, bank, mixing).cost == Reader(blockwise, bank, Mixing.of_log_probs(weights)).cost
    reader_oracle.check(blockwise, bank, mixing, oracle)


@torch.no_grad()
def test_the_sides_of_the_final_norm_differ_and_a_scale_acts_on_both(llama: BaseModel) -> None:
    bank, weights = bank_of(llama), WEIGHTS["on the simplex"]
    before, after = (
        completion_log_probs(llama, bank, Mixing.of_hidden_states(weights, norm=norm), PROMPTS, IDS, LENGTHS)
        for norm in (cast(Norm, "before"), cast(Norm, "after"))
    )
    assert (before - after).abs().max() > 1e-3
    half = torch.full((ROWS,), 0.5)
    scaled = Mixing.of_hidden_states(weights, scale=half, norm="after")
    torch.testing.assert_close(
        completion_log_probs(llama, bank, scaled, PROMPTS, IDS, LENGTHS),
        completion_log_probs(llama, bank, Mixing.of_log_probs(weights / 2), PROMPTS, IDS, LENGTHS),
        atol=CLOSE, rtol=0,
    )  # fmt: skip


def test_only_states_of_the_last_block_are_mixed_after_the_final_norm(llama: BaseModel) -> None:
    with pytest.raises(ModelError, match=r"states must be mixed behind the last block, 1, .* got block 0\. Name"):
        Reader(llama, bank_of(llama), Mixing.of_hidden_states(torch.eye(EXPERTS), 0, norm="after"))
