from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import micro_task
from paretune.core.errors import AdapterError, ConfigError, MixingError, ModelError, ShapeError
from paretune.core.seeds import prompt_key, row_keys
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel, load_base
from paretune.models.decoding import Rollout, sample
from paretune.models.gate import BlockGate, load_gate, resolve_gate
from paretune.models.mixing import Mixing
from paretune.models.scoring import completion_log_probs
from paretune.models.tree import tree_log_probs

CLOSE = 1e-5  # of log-probabilities down to -10: sums over cached and uncached keys in another order, fp32
PROMPTS = [(1, 2, 3, 4), (6,), (1, 2, 3, 4), (7, 2), (7, 2), (1, 2, 3, 4), (6,), (5, 5, 1)]
ROWS, EXPERTS, OBJECTIVES, NEW = len(PROMPTS), 3, 2, 6
TOKENS = torch.randint(1, 8, (ROWS, 3), generator=torch.Generator().manual_seed(1))
LENGTHS = torch.tensor([3, 2, 3, 1, 3, 2, 1, 3])
LETTERS = range(1, 8)


@pytest.fixture(params=["llama", "gpt2", "qwen2"])
def base(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Iterator[BaseModel]:
    yield from released(load_base(str(folders[request.param]), device="cpu"))


@pytest.fixture(params=["llama", "gpt2", "qwen2", "mistral", "falcon"])
def any_base(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Iterator[BaseModel]:
    """Also one with a window of four tokens, and one that tells positions by distance."""
    yield from released(load_base(str(folders[request.param]), device="cpu"))


def released(base: BaseModel) -> Iterator[BaseModel]:
    yield base
    bank = getattr(base.model, "_paretune_bank", None)
    if bank is not None:
        bank.unwrap()


def bank_of(base: BaseModel, experts: int = EXPERTS) -> ExpertBank:
    bank = ExpertBank(base, experts, rank=2, alpha=4.0)
    bank.alphas = torch.tensor([4.0, 2.0, 1.0][:experts])  # scales differ, so that none can be left out unseen
    return micro_task.perturb(bank)


def gate_of(bank: ExpertBank, trained: bool = True, seed: int = 0, width: int = 5) -> BlockGate:
    gate = BlockGate(bank, OBJECTIVES, seed, {"width": width})
    if trained:
        draws = torch.randn(gate.flat.shape, generator=torch.Generator().manual_seed(seed)) * 0.3
        gate.flat.add_(draws.to(gate.flat.device))
    return gate


def prior_of(rows: int = ROWS) -> Tensor:
    """Some rows share theirs, though their preferences differ."""
    return torch.tensor([[0.2, 0.5, 0.3], [1.0, 0.0, -0.4]])[torch.arange(rows) % 2]


def preferences_of(rows: int = ROWS) -> Tensor:
    first = torch.linspace(0, 1, 3)[torch.arange(rows) % 3]
    return torch.stack([first, 1 - first], dim=1)


def mixing_of(gate: BlockGate, scale: Tensor | None = None) -> Mixing:
    return Mixing.gated(prior_of(), gate, preferences_of(), scale)


def keys() -> Any:
    return row_keys(0, 0, [prompt_key(prompt) for prompt in PROMPTS], range(ROWS))


def score(bank: ExpertBank, mixing: Mixing, share: bool = True) -> Tensor:
    return completion_log_probs(bank.base, bank, mixing, PROMPTS, TOKENS, LENGTHS, share_prompts=share)


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
def test_a_prior_of_one_expert_under_an_untrained_gate_is_that_expert(base: BaseModel) -> None:
    bank = bank_of(base)
    prompts, preferences = PROMPTS[:2] * EXPERTS, preferences_of(2 * EXPERTS)
    ids, lengths = TOKENS[:2].repeat(EXPERTS, 1), LENGTHS[:2].repeat(EXPERTS)
    prior = torch.eye(EXPERTS).repeat_interleave(2, dim=0)
    gated = Mixing.gated(prior, gate_of(bank, trained=False), preferences)
    got = completion_log_probs(base, bank, gated, prompts, ids, lengths)
    expected = completion_log_probs(base, bank, Mixing.population(EXPERTS, 2), prompts, ids, lengths)
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
def test_a_trained_gate_follows_the_formula(base: BaseModel, scaled: bool) -> None:
    bank = bank_of(base)
    gate = gate_of(bank)
    mixing = mixing_of(gate, torch.linspace(0.2, 1.2, ROWS) if scaled else None)
    got = {share: score(bank, mixing, share) for share in (True, False)}
    prior = score(bank, Mixing.of_rows(mixing.dense()))
    assert (got[True] - prior).abs().max() > 0.1  # the gate does something
    table = tree_log_probs(base, bank, mixing, PROMPTS, LETTERS, 2)
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
def test_rows_of_different_preferences_in_one_batch_are_those_of_each_alone(base: BaseModel) -> None:
    bank = bank_of(base)
    mixing = mixing_of(gate_of(bank), torch.linspace(0.5, 1, ROWS))
    together = score(bank, mixing)
    prompts = [PROMPTS[0]] * 3
    ids, lengths = TOKENS[:1].expand(3, -1), LENGTHS[:1].expand(3)
    same = Mixing.gated(prior_of(1).expand(3, -1), gate_of(bank), preferences_of(3))  # all but the preference is equal
    alike = completion_log_probs(base, bank, same, prompts, ids, lengths)
    assert (alike[0] - alike[2]).abs().max() > 0.02  # the gate reads the preference
    for row in range(ROWS):
        alone = completion_log_probs(
            base, bank, mixing.rows(torch.tensor([row])), PROMPTS[row : row + 1], TOKENS[row : row + 1],
            LENGTHS[row : row + 1],
        )  # fmt: skip
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=CLOSE)


@torch.no_grad()
def test_rows_may_have_their_gated_tokens_begin_at_different_places(base: BaseModel) -> None:
    bank = bank_of(base)
    mixing = mixing_of(gate_of(bank)).rows(torch.arange(3))
    ids = torch.tensor([[1, 2, 3, 4, 5, 6], [2, 3, 4, 5, 6, 7], [3, 3, 1, 7, 2, 2]])
    starts = [0, 4, 6]  # the last row is not gated at all
    with bank.using(mixing, starts):
        together = base.model(ids).logits
    for row, start in enumerate(starts):
        with bank.using(mixing.rows(torch.tensor([row])), start):
            torch.testing.assert_close(base.model(ids[row : row + 1]).logits[0], together[row], rtol=0, atol=CLOSE)
    with pytest.raises(ShapeError, match=r"one for all rows or one for each \(3\), got 2"), bank.using(mixing, [1, 2]):
        pass


def gradients(bank: ExpertBank, gate: BlockGate, mixing: Mixing, share: bool = True) -> tuple[Tensor, Tensor]:
    """Return the gradients of a weighted sum of log-probabilities in the experts and in the gate."""
    (score(bank, mixing, share).sum(dim=1) * torch.arange(1, ROWS + 1)).sum().backward()
    return bank.take_gradients(), gate.take_gradients()


def test_gradients_of_gate_and_experts_are_finite_differences(folders: dict[str, Path]) -> None:
    base = load_base(str(folders["llama"]), device="cpu", dtype=torch.float64)
    bank = bank_of(base)
    gate = gate_of(bank)
    mixing = mixing_of(gate, torch.linspace(0.5, 1.5, ROWS))
    by_backward = gradients(bank, gate, mixing)
    weights = torch.arange(1, ROWS + 1)
    for flat, gradient in zip((bank.flat, gate.flat), by_backward, strict=True):
        assert gradient.shape == flat.shape
        random, largest = torch.Generator().manual_seed(2), 0.0
        for _ in range(5):
            start, step = flat.clone(), 2e-4 * torch.randn(flat.shape, generator=random)
            values, ends = [], []
            for sign in (1, -1):
                flat.copy_(start + sign * step)
                ends.append(flat.double())
                with torch.no_grad():
                    values.append(float((score(bank, mixing).double().sum(dim=1) * weights).sum()))
            flat.copy_(start)
            expected = float(((ends[0] - ends[1]) * gradient.double()).sum())
            largest = max(largest, abs(expected))
            # the third derivative adds a part in about 1e-4; log-probs rounded to fp32 are 5e-7 apart, 18 of them 1e-5
            assert values[0] - values[1] == pytest.approx(expected, rel=1e-3, abs=3e-5)
        assert largest > 0.02
    bank.unwrap()


def test_gradients_flow_through_what_the_gate_reads(llama: BaseModel) -> None:
    """Under a gate that is cut off from its input, the experts' gradient is another one."""
    bank = bank_of(llama)
    gate = gate_of(bank)
    whole, _ = gradients(bank, gate, mixing_of(gate))

    class Detached:
        experts, objectives, blocks = gate.experts, gate.objectives, gate.blocks

        def weights(self, block: int, hidden: Tensor, prior: Tensor, preferences: Tensor) -> Tensor:
            return gate.weights(block, hidden.detach(), prior, preferences)

    cut, _ = gradients(bank, gate, Mixing.gated(prior_of(), Detached(), preferences_of()))
    assert (whole - cut).abs().max() > 0.01 * whole.abs().max()


def test_sharing_prompts_changes_no_gradient(any_base: BaseModel) -> None:
    bank = bank_of(any_base)
    gate = gate_of(bank)
    for shared, plain in zip(
        gradients(bank, gate, mixing_of(gate)), gradients(bank, gate, mixing_of(gate), share=False), strict=True
    ):
        scale = float(plain.abs().max())
        assert scale > 0.1
        torch.testing.assert_close(shared / scale, plain / scale, rtol=0, atol=2 * CLOSE)


def test_gradients_of_a_gate_are_taken_once(llama: BaseModel) -> None:
    bank = bank_of(llama)
    gate = gate_of(bank)
    assert gradients(bank, gate, mixing_of(gate))[1].any()
    assert not gate.take_gradients().any()


def test_an_untrained_gate_learns_from_its_last_layers_on(llama: BaseModel) -> None:
    bank = bank_of(llama)
    gate = gate_of(bank, trained=False)
    gradients(bank, gate, mixing_of(gate))
    assert not gate.take_gradients().any()
    (score(bank, mixing_of(gate)).sum()).backward()
    for first, first_bias, last, last_bias in gate.networks:
        assert last.grad is not None
        assert last_bias.grad is not None
        assert last.grad.any()
        assert last_bias.grad.any()
        assert not any(part.grad is not None and part.grad.any() for part in (first, first_bias))


@contextmanager
def recomputing(base: BaseModel, reentrant: bool = False) -> Iterator[None]:
    base.model.activation_checkpointing_enable({"use_reentrant": reentrant})
    base.model.train()  # transformers recomputes in training mode only
    dropouts = [(module, module.p) for module in base.model.modules() if isinstance(module, nn.Dropout)]
    for dropout, _ in dropouts:
        dropout.p = 0.0
    try:
        yield
    finally:
        base.model.activation_checkpointing_disable()
        base.model.disable_input_require_grads()
        base.model.eval()
        for dropout, p in dropouts:
            dropout.p = p


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("pinned", ["as in the pass", "anew"])
def test_gradient_checkpointing_gives_equal_gradients(base: BaseModel, pinned: str, reentrant: bool) -> None:
    """Whatever tokens the mixing that is pinned during the backward pass gates, those of the pass are recomputed."""
    bank = bank_of(base)
    gate = gate_of(bank)
    mixing = mixing_of(gate, torch.linspace(0.5, 1.5, ROWS))
    plain = gradients(bank, gate, mixing, share=False)
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    hook = next(iter(bank.layers.values())).register_forward_hook(count)
    gate_from = max(len(prompt) for prompt in PROMPTS) - 1
    with recomputing(base, reentrant), bank.using(mixing, gate_from if pinned == "as in the pass" else 0):
        recomputed = gradients(bank, gate, mixing)
    hook.remove()
    assert calls == 2  # forward, and again inside backward
    for mine, theirs in zip(recomputed, plain, strict=True):
        # the same operations once more
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6 * float(theirs.abs().max()))


def test_two_passes_are_recomputed_each_as_it_was(llama: BaseModel) -> None:
    bank = bank_of(llama)
    gate = gate_of(bank)
    one = mixing_of(gate)
    other = Mixing.gated(prior_of().flip(0), gate, preferences_of().flip(0))

    def loss(mixing: Mixing) -> Tensor:
        return score(bank, mixing, share=False).sum()

    (loss(one) + loss(other)).backward()
    plain = bank.take_gradients(), gate.take_gradients()
    with recomputing(llama), bank.using(one):
        (loss(one) + loss(other)).backward()
    for mine, theirs in zip((bank.take_gradients(), gate.take_gradients()), plain, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6 * float(theirs.abs().max()))


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


def test_equal_seeds_give_equal_gates_and_blocks_differ(llama: BaseModel) -> None:
    bank = bank_of(llama)
    one, two, other = (BlockGate(bank, OBJECTIVES, seed) for seed in (5, 5, 6))
    assert one.flat.equal(two.flat)
    assert not one.flat.equal(other.flat)
    assert not one.networks[0][0].equal(one.networks[1][0])
    # a block: 32 units over 16 hidden numbers and 2 objectives, a last layer of 3 experts over 32 units
    assert one.flat.shape == (1, 2 * (32 * 18 + 32 + 3 * 32 + 3))
    assert one.flat.abs().max() <= 18**-0.5
    # a uniform on [-b, b] has standard deviation b / sqrt(3); 1,216 draws put it within 5 %
    draws = torch.cat([part.detach().flatten() for network in one.networks for part in network[:2]])
    assert float(draws.std()) == pytest.approx((18 * 3) ** -0.5, rel=0.05)


def test_parameters_are_views_of_one_row(llama: BaseModel) -> None:
    gate = gate_of(bank_of(llama))
    gate.flat.copy_(torch.arange(gate.flat.numel(), dtype=torch.float32)[None])
    assert torch.cat([part.detach().flatten() for part in gate.parameters()]).equal(gate.flat[0])


def test_a_saved_gate_comes_back_bit_for_bit(base: BaseModel, tmp_path: Path) -> None:
    bank = bank_of(base)
    gate = gate_of(bank)
    path = tmp_path / "stage" / "gate.safetensors"
    gate.save(path)
    again = load_gate(bank, path)
    assert again.flat.equal(gate.flat)
    assert isinstance(again, BlockGate)
    assert (again.width, again.objectives, again.digest) == (5, OBJECTIVES, gate.digest)
    with torch.no_grad():
        assert score(bank, mixing_of(again)).equal(score(bank, mixing_of(gate)))
    again.flat[0, -1] += 1
    assert again.digest != gate.digest
    assert gate_of(bank, width=4, trained=False).digest != gate_of(bank, width=5, trained=False).digest


def edited(change: Callable[[dict[str, Tensor], dict[str, str]], Any]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata())
        tensors = load_file(path)
        change(tensors, metadata)
        save_file(tensors, path, metadata=metadata)

    return edit


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "must be a safetensors file, got none"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "must be readable, got: .* Copy or train it again"),
        (lambda path: path.write_text("{}"), "must be readable, got"),
        (flip_bit, "must hold what was saved, got other content"),
        (edited(lambda tensors, _: tensors.update(flat=tensors["flat"][:, 1:].contiguous())), "must hold what was sav"),
        (edited(lambda tensors, _: tensors.update(flat=tensors["flat"].double())), "must hold what was saved"),
        (edited(lambda tensors, _: tensors.update(other=tensors.pop("flat"))), "must be readable|no .*in it"),
        (edited(lambda _, metadata: metadata.pop("blocks")), "must be a gate's file, got no 'blocks' in it"),
        (edited(lambda _, metadata: metadata.update(blocks="deep")), "must be readable, got: invalid literal"),
        (edited(lambda _, metadata: metadata.update(settings='{"width":0}')), "must hold what was saved"),
        (edited(lambda _, metadata: metadata.update(blocks="3")), "must hold what was saved"),
        (edited(lambda _, metadata: metadata.update(settings="[1]")), "must hold what was saved"),
        (edited(lambda _, metadata: metadata.update({"class": "gone:Gate"})), "must be an importable 'module:name'"),
        (
            edited(lambda _, metadata: metadata.update({"class": "subprocess:Popen"})),
            "must be a class that inherits TrainedGate, got 'subprocess:Popen'",
        ),
        (edited(lambda _, metadata: metadata.clear()), "must be a gate's file, got no 'experts' in it"),
    ],
)
def test_a_damaged_gate_is_refused(
    llama: BaseModel, tmp_path: Path, damage: Callable[[Path], Any], message: str
) -> None:
    bank, path = bank_of(llama), tmp_path / "gate.safetensors"
    gate_of(bank).save(path)
    damage(path)
    with pytest.raises(AdapterError, match=message):
        load_gate(bank, path)


def test_a_gate_of_another_model_or_other_experts_is_refused(llama: BaseModel, tmp_path: Path) -> None:
    path = tmp_path / "gate.safetensors"
    gate_of(bank_of(llama)).save(path)
    with pytest.raises(AdapterError, match="must weigh the 2 experts of the bank, got one for 3"):
        load_gate(bank_of(llama, experts=2), path)
    other = load_base(str(micro_task.save_model(tmp_path / "other", seed=1)), device="cpu")
    with pytest.raises(AdapterError, match=f"must belong to base model '.*other' .*trained on {llama.digest}"):
        load_gate(bank_of(other), path)


def test_a_gate_used_where_it_does_not_belong_is_refused(llama: BaseModel, tmp_path: Path) -> None:
    larger = load_base(str(micro_task.save_model(tmp_path / "larger", hidden_size=32)), device="cpu")
    deeper = load_base(str(micro_task.save_model(tmp_path / "deeper", num_hidden_layers=3)), device="cpu")
    mixing = mixing_of(gate_of(bank_of(llama)))
    with pytest.raises(MixingError, match="hidden states must be of size 16, which the gate reads, got 32"):
        score(bank_of(larger), mixing)
    with pytest.raises(MixingError, match="for the 3 transformer blocks of the model, got one for 2"):
        score(bank_of(deeper), mixing)
    bank = bank_of(llama)
    with pytest.raises(MixingError, match="must see the 8 rows of its mixing, got 2"), bank.using(mixing):
        llama.model(TOKENS[:2])


def test_a_gate_that_returns_something_else_is_refused(llama: BaseModel) -> None:
    class Narrow:
        experts, objectives, blocks = EXPERTS, OBJECTIVES, 2

        def weights(self, block: int, hidden: Tensor, prior: Tensor, preferences: Tensor) -> Tensor:
            return prior[:, None]

    with pytest.raises(ShapeError, match=r"must return weights of shape \[8, 4, 3\], \[B, T, E\], got \[8, 1, 3\]"):
        score(bank_of(llama), Mixing.gated(prior_of(), Narrow(), preferences_of()), share=False)


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


def test_a_gate_that_could_not_be_loaded_is_refused_before_it_is_trained() -> None:
    assert resolve_gate("paretune.models.gate:BlockGate") is BlockGate
    for name in ("paretune.models.mixing:Gate", "paretune.models.gate:load_gate", "builtins:dict"):
        with pytest.raises(ConfigError, match=f"must be a class that inherits TrainedGate, got '{name}'"):
            resolve_gate(name)


@pytest.mark.parametrize(
    ("objectives", "width", "message"),
    [(0, 32, "at least one objective, got 0"), (2, 0, r"at least one parameter each, got \[\(0, 18\)")],
)
def test_a_gate_without_objective_or_unit_is_refused(
    llama: BaseModel, objectives: int, width: int, message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        BlockGate(bank_of(llama), objectives, 0, {"width": width})


def test_a_model_without_blocks_or_hidden_size_is_refused(llama: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = llama.model
    monkeypatch.setattr(model.model, "bridge", nn.Linear(16, 16), raising=False)
    with pytest.raises(ModelError, match=r"one list of transformer blocks to be gated, got 'model\.bridge' outside it"):
        gate_of(bank_of(llama))
    model._paretune_bank.unwrap()
    monkeypatch.undo()
    bank = bank_of(llama)
    monkeypatch.setattr(type(model.config), "get_text_config", lambda self: object())
    with pytest.raises(ModelError, match="must name its hidden size to be gated, got none"):
        gate_of(bank)


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
