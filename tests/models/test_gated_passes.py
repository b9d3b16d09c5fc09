"""What passes through a model under a gate compute: sampling, scoring and the tree, against formula and identities."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gated import (
    EXPERTS,
    LENGTHS,
    OBJECTIVES,
    PROMPTS,
    ROWS,
    TOKENS,
    bank_of,
    gate_of,
    keys,
    mixing_of,
    preferences_of,
    prior_of,
    score,
)
from paretune.core.errors import MixingError, ShapeError
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.decoding import Rollout, sample
from paretune.models.gate import BlockGate
from paretune.models.loading import load_base
from paretune.models.mixing import Mixing
from paretune.models.scoring import completion_log_probs
from paretune.models.tree import tree_log_probs
from reader_oracle import CLOSE

NEW = 6
LETTERS = range(1, 8)


def texts(rollout: Rollout) -> list[tuple[int, ...]]:
    sizes = rollout.lengths.tolist()
    return [tuple(ids[:size]) for ids, size in zip(rollout.token_ids.tolist(), sizes, strict=True)]


def by_formula(bank: ExpertBank, gate: BlockGate, mixing: Mixing, row: int, completion: list[int]) -> Tensor:
    """Return the log-probabilities of one row's completion by the formula, on the untouched model, nothing shared.

    Each block's input is read by a hook, the network is made of torch's modules on the concatenated input, and every
    expert is a sum of its own.
    """
    from transformers import AutoModelForCausalLM

    assert mixing.expert_weights is not None
    assert mixing.preferences is not None
    model: Any = AutoModelForCausalLM.from_pretrained(bank.base.name).eval()
    prior, preference = mixing.expert_weights[row], mixing.preferences[row]
    prompt = PROMPTS[row]
    inputs = model.config.hidden_size
    now: dict[str, Tensor] = {}

    def enter(number: int) -> Callable[..., None]:
        network = nn.Sequential(nn.Linear(inputs + OBJECTIVES, gate.width), nn.SiLU(), nn.Linear(gate.width, EXPERTS))
        with torch.no_grad():
            for own, given in zip(network.parameters(), gate.networks[number], strict=True):
                own.copy_(given)

        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            context = nn.LayerNorm(inputs, elementwise_affine=False)(args[0])
            wanted = preference.expand(*context.shape[:2], -1)
            offset = network(torch.cat([context, wanted], dim=2))
            offset[:, : len(prompt) - 1] = 0  # tokens before the last of the prompt
            g = prior + offset
            now["g"] = g if mixing.scale is None else g * mixing.scale[row]

        return hook

    def adapted(down: Tensor, up: Tensor) -> Callable[..., Tensor]:
        def hook(_: nn.Module, args: tuple[Any, ...], y: Tensor) -> Tensor:
            for e in range(EXPERTS):
                factor = now["g"][:, :, e, None] * float(bank.alphas[e]) / bank.rank
                y = y + factor * (args[0] @ down[e].T @ up[e].T)
            return y

        return hook

    holder = {"gpt2": "transformer.h", "falcon": "transformer.h"}.get(model.config.model_type, "model.layers")
    for number, block in enumerate(model.get_submodule(holder)):
        block.register_forward_pre_hook(enter(number))
    for path, layer in bank.layers.items():
        model.get_submodule(path).register_forward_hook(adapted(layer.A.detach(), layer.B.detach()))
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *completion]]), use_cache=False).logits[0]
    places = range(len(prompt) - 1, len(prompt) - 1 + len(completion))
    return torch.stack([logits[at].log_softmax(dim=-1)[token] for at, token in zip(places, completion, strict=True)])


@torch.no_grad()
def test_an_untrained_gate_is_its_prior_bit_for_bit(any_base: BaseModel) -> None:
    bank = bank_of(any_base)
    gate = gate_of(bank, trained=False)
    assert gate.flat.any()  # only the last layers are zero
    scale = torch.linspace(0.5, 1, ROWS)
    for gated, plain in (
        (mixing_of(gate), Mixing.of_rows(prior_of())),
        (mixing_of(gate, scale), Mixing.of_rows(prior_of() * scale[:, None])),
    ):
        for share in (True, False):
            assert score(bank, gated, share).equal(score(bank, plain, share))
        one = sample(any_base, bank, PROMPTS, gated, keys(), NEW, share_prefill=False)
        other = sample(any_base, bank, PROMPTS, plain, keys(), NEW, share_prefill=False)
        assert texts(one) == texts(other)
        assert one.log_probs.equal(other.log_probs)
        assert texts(sample(any_base, bank, PROMPTS, gated, keys(), NEW)) == texts(other)
        if any_base.full_attention and any_base.takes_positions:
            trees = [tree_log_probs(any_base, bank, mixing, PROMPTS, LETTERS, 2) for mixing in (gated, plain)]
            assert trees[0].equal(trees[1])


@torch.no_grad()
def test_an_untrained_gate_is_its_prior_bit_for_bit_in_bf16(folders: dict[str, Path]) -> None:
    base = load_base(str(folders["llama"]), device="cpu", dtype=torch.bfloat16)
    bank = bank_of(base)
    assert score(bank, mixing_of(gate_of(bank, trained=False))).equal(score(bank, Mixing.of_rows(prior_of())))
    gated = score(bank, mixing_of(gate_of(bank)))
    assert gated.isfinite().all()
    assert (gated - score(bank, Mixing.of_rows(prior_of()))).abs().max() > 0.1
    bank.unwrap()


@torch.no_grad()
def test_a_prior_of_one_expert_under_an_untrained_gate_is_that_expert(blockwise: BaseModel) -> None:
    bank = bank_of(blockwise)
    prompts, preferences = PROMPTS[:2] * EXPERTS, preferences_of(2 * EXPERTS)
    ids, lengths = TOKENS[:2].repeat(EXPERTS, 1), LENGTHS[:2].repeat(EXPERTS)
    prior = torch.eye(EXPERTS).repeat_interleave(2, dim=0)
    gated = Mixing.gated(prior, gate_of(bank, trained=False), preferences)
    got = completion_log_probs(blockwise, bank, gated, prompts, ids, lengths)
    expected = completion_log_probs(blockwise, bank, Mixing.population(EXPERTS, 2), prompts, ids, lengths)
    torch.testing.assert_close(got, expected, rtol=0, atol=CLOSE)


@torch.no_grad()
def test_scale_zero_is_the_untouched_model_bit_for_bit(any_base: BaseModel) -> None:
    bank = bank_of(any_base)
    zero = mixing_of(gate_of(bank), torch.zeros(ROWS))
    reference = Mixing.reference(ROWS)
    for share in (True, False):
        one = sample(any_base, bank, PROMPTS, zero, keys(), NEW, share_prefill=False)
        other = sample(any_base, bank, PROMPTS, reference, keys(), NEW, share_prefill=False)
        assert texts(one) == texts(other)
        assert one.log_probs.equal(other.log_probs)
        plain = completion_log_probs(any_base, None, reference, PROMPTS, TOKENS, LENGTHS, share_prompts=False)
        torch.testing.assert_close(score(bank, zero, share), plain, rtol=0, atol=0 if not share else CLOSE)
    if any_base.full_attention and any_base.takes_positions:
        trees = [tree_log_probs(any_base, bank, mixing, PROMPTS, LETTERS, 2) for mixing in (zero, reference)]
        assert trees[0].equal(trees[1])


@torch.no_grad()
@pytest.mark.parametrize("scaled", [False, True])
def test_a_trained_gate_follows_the_formula(blockwise: BaseModel, scaled: bool) -> None:
    bank = bank_of(blockwise)
    gate = gate_of(bank)
    mixing = mixing_of(gate, torch.linspace(0.2, 1.2, ROWS) if scaled else None)
    got = {share: score(bank, mixing, share) for share in (True, False)}
    prior = score(bank, Mixing.of_rows(mixing.dense()))
    assert (got[True] - prior).abs().max() > 0.1  # the gate does something
    table = tree_log_probs(blockwise, bank, mixing, PROMPTS, LETTERS, 2)
    pairs = list(itertools.product(LETTERS, repeat=2))
    for row in range(ROWS):
        size = int(LENGTHS[row])
        expected = by_formula(bank, gate, mixing, row, TOKENS[row].tolist())[:size]
        for share in (True, False):
            torch.testing.assert_close(got[share][row, :size], expected, rtol=0, atol=CLOSE)
        pair = pairs[7 * row % len(pairs)]
        whole = float(by_formula(bank, gate, mixing, row, list(pair)).sum())
        assert float(table[row, pairs.index(pair)]) == pytest.approx(whole, abs=CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("scaled", [False, True])
def test_cached_decoding_agrees_with_scoring_and_sharing_changes_nothing(any_base: BaseModel, scaled: bool) -> None:
    bank = bank_of(any_base)
    mixing = mixing_of(gate_of(bank), torch.linspace(0.2, 1.2, ROWS) if scaled else None)
    rollout = sample(any_base, bank, PROMPTS, mixing, keys(), NEW)
    alone = sample(any_base, bank, PROMPTS, mixing, keys(), NEW, share_prefill=False)
    assert len(set(rollout.lengths.tolist())) > 1  # some rows left early
    assert texts(rollout) == texts(alone)
    torch.testing.assert_close(rollout.log_probs, alone.log_probs, rtol=0, atol=CLOSE)
    for share in (True, False):
        scored = completion_log_probs(
            any_base, bank, mixing, PROMPTS, rollout.token_ids, rollout.lengths, share_prompts=share
        )
        torch.testing.assert_close(rollout.log_probs, scored, rtol=0, atol=CLOSE)


@torch.no_grad()
def test_rows_of_different_preferences_in_one_batch_are_those_of_each_alone(blockwise: BaseModel) -> None:
    bank = bank_of(blockwise)
    mixing = mixing_of(gate_of(bank), torch.linspace(0.5, 1, ROWS))
    together = score(bank, mixing)
    prompts = [PROMPTS[0]] * 3
    ids, lengths = TOKENS[:1].expand(3, -1), LENGTHS[:1].expand(3)
    same = Mixing.gated(prior_of(1).expand(3, -1), gate_of(bank), preferences_of(3))  # all but the preference is equal
    alike = completion_log_probs(blockwise, bank, same, prompts, ids, lengths)
    assert (alike[0] - alike[2]).abs().max() > 0.02  # the gate reads the preference
    for row in range(ROWS):
        alone = completion_log_probs(
            blockwise, bank, mixing.rows(torch.tensor([row])), PROMPTS[row : row + 1], TOKENS[row : row + 1],
            LENGTHS[row : row + 1],
        )  # fmt: skip
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=CLOSE)


@torch.no_grad()
def test_rows_may_have_their_gated_tokens_begin_at_different_places(blockwise: BaseModel) -> None:
    bank = bank_of(blockwise)
    mixing = mixing_of(gate_of(bank)).rows(torch.arange(3))
    ids = torch.tensor([[1, 2, 3, 4, 5, 6], [2, 3, 4, 5, 6, 7], [3, 3, 1, 7, 2, 2]])
    starts = [0, 4, 6]  # the last row is not gated at all
    with bank.using(mixing, starts):
        together = blockwise.model(ids).logits
    for row, start in enumerate(starts):
        with bank.using(mixing.rows(torch.tensor([row])), start):
            torch.testing.assert_close(blockwise.model(ids[row : row + 1]).logits[0], together[row], rtol=0, atol=CLOSE)
    with pytest.raises(ShapeError, match=r"one for all rows or one for each \(3\), got 2"), bank.using(mixing, [1, 2]):
        pass


def test_a_gate_of_your_own_may_weigh_experts_as_it_likes(llama: BaseModel) -> None:
    """One that favours the expert of its preference more, the further a token is from the mean."""

    class Softmax:
        experts, objectives, blocks = EXPERTS, OBJECTIVES, 2

        def weights(self, block: int, hidden: Tensor, prior: Tensor, preferences: Tensor) -> Tensor:
            heat = 1 + block + hidden.std(dim=2, keepdim=True)
            return (prior[:, None] * heat).softmax(dim=2)

    bank = bank_of(llama)
    mixing = Mixing.gated(prior_of(), Softmax(), preferences_of())
    rollout = sample(llama, bank, PROMPTS, mixing, keys(), NEW)
    with torch.no_grad():
        scored = completion_log_probs(llama, bank, mixing, PROMPTS, rollout.token_ids, rollout.lengths)
    torch.testing.assert_close(rollout.log_probs, scored, rtol=0, atol=CLOSE)


@torch.no_grad()
def test_mixings_inside_a_gated_one_end_where_it_goes_on(llama: BaseModel) -> None:
    bank = bank_of(llama)
    mixing = mixing_of(gate_of(bank))
    ids = TOKENS

    def logits(gate_from: int | None = None) -> Tensor:
        if gate_from is None:
            return llama.model(ids).logits  # type: ignore[no-any-return]
        with bank.using(mixing, gate_from):
            return llama.model(ids).logits  # type: ignore[no-any-return]

    gated, late, prior = logits(0), logits(2), logits(3)
    with bank.using(Mixing.of_rows(prior_of())):
        assert prior.equal(logits())
    assert not gated.equal(late)
    with bank.using(mixing):
        with bank.using(Mixing.reference(ROWS)):
            reference = logits()
        assert logits().equal(gated)
        assert logits(2).equal(late)
        assert logits().equal(gated)
    with bank.using(Mixing.reference(ROWS)):
        assert logits().equal(reference)
    scored = score(bank, mixing)
    with bank.using(mixing):  # as a learner does; the distinct prompts are fewer rows
        assert score(bank, mixing).equal(scored)
    with pytest.raises(MixingError, match="got none"):
        logits()
    assert not any(block._forward_pre_hooks for block in bank.blocks)


@pytest.mark.gpu
@torch.no_grad()
def test_identities_hold_on_a_gpu_for_mixings_made_on_either_device(folders: dict[str, Path]) -> None:
    for dtype, close in ((torch.float32, 1e-3), (torch.bfloat16, 0.3)):  # fp32 products may be TF32; bf16 has 8 bits
        base = load_base(str(folders["llama"]), device="cuda", dtype=dtype)
        bank = bank_of(base)
        ids, lengths = TOKENS.cuda(), LENGTHS.cuda()

        def scored(mixing: Mixing, bank: ExpertBank = bank, ids: Tensor = ids, lengths: Tensor = lengths) -> Tensor:
            return completion_log_probs(bank.base, bank, mixing, PROMPTS, ids, lengths)

        untrained, gate = gate_of(bank, trained=False), gate_of(bank)
        assert gate.flat.is_cuda
        assert scored(mixing_of(untrained)).equal(scored(Mixing.of_rows(prior_of())))
        scale = torch.linspace(0.5, 1, ROWS)
        here = mixing_of(gate, scale)
        there = Mixing.gated(prior_of().cuda(), gate, preferences_of().cuda(), scale.cuda())
        assert scored(here).equal(scored(there))
        rollout = sample(base, bank, PROMPTS, here, keys(), NEW)
        again = completion_log_probs(base, bank, here, PROMPTS, rollout.token_ids, rollout.lengths)
        torch.testing.assert_close(rollout.log_probs, again, rtol=0, atol=close)
        bank.unwrap()
