from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import micro_task
from paretune.core.errors import MixingError, ModelError, ShapeError
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.loading import KIND
from paretune.models.mixing import Mixing
from paretune.models.whole import load_whole

CLOSE = 1e-5  # of logits of order 1: one addition more or less per layer in fp32
EXPERTS = 3
IDS = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 1], [2, 2, 1, 3], [7, 1, 4, 4], [3, 5, 5, 6], [6, 4, 2, 7]])


def untouched(base: BaseModel) -> Any:
    """Load the model again, without a bank; it is what transformers loads, but for how GELU is rounded."""
    from transformers import AutoModelForCausalLM

    model = load_whole(AutoModelForCausalLM, base.name, torch.float32, "model", KIND)[0].eval()
    theirs = AutoModelForCausalLM.from_pretrained(base.name).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(IDS).logits, theirs(IDS).logits, rtol=1e-4, atol=1e-5)
    return model


def bank_of(base: BaseModel, experts: int = EXPERTS) -> ExpertBank:
    bank = ExpertBank(base, experts, rank=2, alpha=4.0)
    bank.alphas = torch.tensor([4.0, 2.0, 1.0][:experts])  # scales differ, so that none can be left out unseen
    return micro_task.perturb(bank)


def run(bank: ExpertBank, mixing: Mixing, ids: Tensor = IDS) -> Tensor:
    with bank.using(mixing):
        logits: Tensor = bank.base.model(ids).logits
    return logits


def merged(base: BaseModel, bank: ExpertBank, weights: list[float]) -> Any:
    """Return the untouched model with `sum_e g_e s_e B_e A_e` added to its parameters by hand."""
    model = untouched(base)
    with torch.no_grad():
        for path, layer in bank.layers.items():
            delta = sum(
                weight * float(bank.alphas[e]) / bank.rank * (layer.B[e] @ layer.A[e])
                for e, weight in enumerate(weights)
            )
            target = model.get_submodule(path)
            target.weight += delta.T if type(target).__name__ == "Conv1D" else delta
    return model


@pytest.mark.parametrize("mixing", [Mixing.population(3, 2), Mixing.of_rows(torch.eye(3)[[0, 0, 1, 1, 2, 2]])])
def test_autocast_reads_alike_with_gradients_and_without(base: BaseModel, mixing: Mixing) -> None:
    bank = bank_of(base)
    exact = run(bank, mixing)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        learning = run(bank, mixing)
        with torch.no_grad():
            reading = run(bank, mixing)
    assert learning.dtype == reading.dtype == torch.bfloat16
    for got in (learning, reading):
        assert (got.float() - exact).abs().mean() < 0.03 * exact.abs().mean()  # bf16 has 8 bits


@torch.no_grad()
def test_no_expert_is_the_untouched_model_bit_for_bit(base: BaseModel) -> None:
    expected = untouched(base)(IDS).logits
    bank = bank_of(base)
    assert run(bank, Mixing.reference(len(IDS))).equal(expected)
    assert run(bank, Mixing.of_rows(torch.zeros(len(IDS), EXPERTS))).equal(expected)
    bank.unwrap()
    assert base.model(IDS).logits.equal(expected)


@torch.no_grad()
def test_fresh_experts_are_the_untouched_model(base: BaseModel) -> None:
    expected = untouched(base)(IDS).logits
    bank = ExpertBank(base, EXPERTS)
    bank.initialise([0, 1, 2])
    torch.testing.assert_close(run(bank, Mixing.population(EXPERTS, 2)), expected, rtol=0, atol=0)


@torch.no_grad()
def test_rows_of_one_expert_a_population_and_the_merged_expert_are_the_same(base: BaseModel) -> None:
    bank = bank_of(base)
    expected = torch.cat(
        [merged(base, bank, one)(IDS[2 * e : 2 * e + 2]).logits for e, one in enumerate(torch.eye(EXPERTS).tolist())]
    )
    assert (expected - untouched(base)(IDS).logits).abs().max() > 0.1  # the experts do something
    gates = torch.eye(EXPERTS).repeat_interleave(2, dim=0)
    torch.testing.assert_close(run(bank, Mixing.of_rows(gates)), expected, rtol=CLOSE, atol=CLOSE)
    torch.testing.assert_close(run(bank, Mixing.population(EXPERTS, 2)), expected, rtol=CLOSE, atol=CLOSE)


@torch.no_grad()
def test_constant_weights_are_the_soup_of_the_deltas_exactly(base: BaseModel) -> None:
    bank = bank_of(base)
    soup = [0.5, 0.8, -0.4]
    got = run(bank, Mixing.of_rows(torch.tensor([soup] * len(IDS))))
    torch.testing.assert_close(got, merged(base, bank, soup)(IDS).logits, rtol=CLOSE, atol=CLOSE)


@torch.no_grad()
def test_every_row_of_a_batch_has_its_own_weights(base: BaseModel) -> None:
    bank = bank_of(base)
    gates = torch.rand(len(IDS), EXPERTS, generator=torch.Generator().manual_seed(0))
    together = run(bank, Mixing.of_rows(gates))
    for row, own in enumerate(gates.tolist()):
        alone = merged(base, bank, own)(IDS[row : row + 1]).logits
        torch.testing.assert_close(together[row : row + 1], alone, rtol=CLOSE, atol=CLOSE)


@torch.no_grad()
def test_some_members_of_a_population_may_run_without_the_others(base: BaseModel) -> None:
    bank = bank_of(base)
    whole = run(bank, Mixing.population(EXPERTS, 2))
    part = run(bank, Mixing.population(EXPERTS, 2, members=(2, 0)), torch.cat([IDS[4:6], IDS[0:2]]))
    torch.testing.assert_close(part, torch.cat([whole[4:6], whole[0:2]]), rtol=CLOSE, atol=CLOSE)


@torch.no_grad()
def test_experts_changed_in_place_are_seen_by_the_next_pass(llama: BaseModel) -> None:
    bank = bank_of(llama)
    for mixing in (Mixing.population(EXPERTS, 2), Mixing.of_rows(torch.rand(6, EXPERTS))):
        before = run(bank, mixing)
        bank.flat.mul_(0.5)
        assert not run(bank, mixing).equal(before)
        bank.flat.mul_(2)  # exact: a power of two
        assert run(bank, mixing).equal(before)


@torch.no_grad()
def test_scales_changed_are_seen_by_the_next_pass(llama: BaseModel) -> None:
    bank = bank_of(llama)
    for mixing in (Mixing.population(EXPERTS, 2), Mixing.of_rows(torch.rand(6, EXPERTS))):
        before = run(bank, mixing)
        bank.alphas = bank.alphas * 2
        assert not run(bank, mixing).equal(before)


def gradients(bank: ExpertBank, mixing: Mixing, ids: Tensor, train: bool = False) -> Tensor:
    with bank.using(mixing):
        logits = bank.base.model(ids, use_cache=not train).logits
        (logits.log_softmax(dim=-1)[:, :-1].gather(2, ids[:, 1:, None]).sum()).backward()
    return bank.take_gradients()


def gradient_alone(base: BaseModel, bank: ExpertBank, expert: int, ids: Tensor) -> Tensor:
    """Return the gradient of one expert, from autograd through its merged parameters: nothing of the bank runs."""
    model = untouched(base)
    factors = {path: (layer.A[expert].detach().clone(), layer.B[expert].detach().clone())
               for path, layer in bank.layers.items()}  # fmt: skip
    leaves = [factor.requires_grad_() for pair in factors.values() for factor in pair]
    parameters = dict(model.named_parameters())
    for path, (down, up) in factors.items():
        delta = float(bank.alphas[expert]) / bank.rank * up @ down
        conv = type(model.get_submodule(path)).__name__ == "Conv1D"
        parameters[f"{path}.weight"] = parameters[f"{path}.weight"].detach() + (delta.T if conv else delta)
    logits = torch.func.functional_call(model, parameters, (ids,), tie_weights=False).logits
    logits.log_softmax(dim=-1)[:, :-1].gather(2, ids[:, 1:, None]).sum().backward()
    return torch.cat([leaf.grad.flatten() for leaf in leaves if leaf.grad is not None])


def test_gradients_through_rows_and_through_a_population_are_those_of_each_expert_alone(base: BaseModel) -> None:
    bank = bank_of(base)
    alone = torch.stack([gradient_alone(base, bank, e, IDS[2 * e : 2 * e + 2]) for e in range(EXPERTS)])
    scale = float(alone.abs().max())
    assert scale > 0.1
    by_population = gradients(bank, Mixing.population(EXPERTS, 2), IDS)
    by_rows = gradients(bank, Mixing.of_rows(torch.eye(EXPERTS).repeat_interleave(2, dim=0)), IDS)
    for got in (by_population, by_rows):
        torch.testing.assert_close(got, alone, rtol=CLOSE, atol=CLOSE * scale)  # relative to the largest entry


def test_members_that_do_not_run_get_no_gradient(llama: BaseModel) -> None:
    bank = bank_of(llama)
    whole = gradients(bank, Mixing.population(EXPERTS, 2), IDS)
    part = gradients(bank, Mixing.population(EXPERTS, 2, members=(2,)), IDS[4:])
    torch.testing.assert_close(part[2], whole[2], rtol=1e-4, atol=1e-4)  # sums of 8 terms in another order
    assert not part[:2].any()


def test_gradients_are_taken_once(llama: BaseModel) -> None:
    bank = bank_of(llama)
    assert gradients(bank, Mixing.population(EXPERTS, 2), IDS).any()
    assert not bank.take_gradients().any()


def test_the_base_model_is_never_trained(llama: BaseModel) -> None:
    bank = bank_of(llama)
    gradients(bank, Mixing.population(EXPERTS, 2), IDS)
    own = {id(parameter) for parameter in bank.expert_parameters()}
    others = [parameter for parameter in llama.model.parameters() if id(parameter) not in own]
    assert others
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in others)


@contextmanager
def recomputation(model: Any) -> Iterator[None]:
    model.activation_checkpointing_enable()
    model.train()  # transformers recomputes in training mode only
    try:
        yield
    finally:
        model.activation_checkpointing_disable()
        model.disable_input_require_grads()  # a hook that enabling leaves behind
        model.eval()


@pytest.fixture
def recomputing(llama: BaseModel) -> Iterator[BaseModel]:
    with recomputation(llama.model):
        yield llama


@pytest.mark.parametrize("layout", ["population", "rows"])
def test_gradient_checkpointing_gives_equal_gradients_under_one_pinned_mixing(llama: BaseModel, layout: str) -> None:
    bank = bank_of(llama)
    mixing = Mixing.population(EXPERTS, 2) if layout == "population" else Mixing.of_rows(torch.rand(6, EXPERTS))
    plain = gradients(bank, mixing, IDS, train=True)
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    hook = next(iter(bank.layers.values())).register_forward_hook(count)
    with recomputation(llama.model):
        recomputed = gradients(bank, mixing, IDS, train=True)
    hook.remove()
    assert calls == 2  # forward, and again inside backward
    torch.testing.assert_close(recomputed, plain, rtol=1e-6, atol=1e-6)  # the same operations once more


def test_a_backward_pass_that_recomputes_outside_its_mixing_is_refused(recomputing: BaseModel) -> None:
    bank = bank_of(recomputing)
    with bank.using(Mixing.population(EXPERTS, 2)):
        loss = recomputing.model(IDS, use_cache=False).logits.sum()
    with pytest.raises(MixingError, match=r"must run under a mixing, got none\. Wrap the forward and the backward"):
        loss.backward()


def test_a_backward_pass_that_recomputes_under_another_mixing_is_refused(recomputing: BaseModel) -> None:
    bank = bank_of(recomputing)
    with bank.using(Mixing.population(EXPERTS, 2)):
        loss = recomputing.model(IDS, use_cache=False).logits.sum()
    with bank.using(Mixing.population(EXPERTS, 1)), pytest.raises(MixingError, match="the 3 rows of its mixing, got 6"):
        loss.backward()


def test_a_wrapped_model_without_a_mixing_is_refused(base: BaseModel) -> None:
    bank_of(base)
    with pytest.raises(MixingError, match="must run under a mixing, got none"):
        base.model(IDS)


@pytest.mark.parametrize("mixing", [Mixing.population(EXPERTS, 3), Mixing.of_rows(torch.rand(5, EXPERTS))])
def test_rows_of_another_batch_are_refused(llama: BaseModel, mixing: Mixing) -> None:
    with pytest.raises(MixingError, match=f"the {mixing.batch} rows of its mixing, got 6. Use mixing.rows"):
        run(bank_of(llama), mixing)


def test_a_mixing_of_another_number_of_experts_is_refused(llama: BaseModel) -> None:
    with pytest.raises(MixingError, match="the 3 experts of the bank, got 2"):
        run(bank_of(llama), Mixing.population(2, 3))


def test_a_mixing_ends_with_its_block_even_after_an_error(llama: BaseModel) -> None:
    bank = bank_of(llama)
    with pytest.raises(KeyError), bank.using(Mixing.reference(6)):
        raise KeyError
    with pytest.raises(MixingError, match="got none"):
        llama.model(IDS)


@torch.no_grad()
def test_a_mixing_inside_another_ends_where_the_other_goes_on(llama: BaseModel) -> None:
    bank = bank_of(llama)
    expected = run(bank, Mixing.population(EXPERTS, 2))
    with bank.using(Mixing.population(EXPERTS, 2)):
        run(bank, Mixing.reference(6))
        assert llama.model(IDS).logits.equal(expected)


def test_a_model_without_a_linear_layer_to_wrap_is_refused(llama: BaseModel) -> None:
    with pytest.raises(ModelError, match="a linear layer named nothing beside its output head, got none"):
        ExpertBank(llama, 1, targets=["nothing"])
    headless = BaseModel("head only", "", torch.nn.Module(), None)
    headless.model.head = torch.nn.Linear(2, 2)
    headless.model.get_output_embeddings = lambda: headless.model.head
    with pytest.raises(ModelError, match="any linear layer beside its output head, got none in 'head only'"):
        ExpertBank(headless, 1)


@pytest.mark.parametrize(("experts", "rank"), [(0, 8), (1, 0)])
def test_a_bank_without_expert_or_rank_is_refused(llama: BaseModel, experts: int, rank: int) -> None:
    with pytest.raises(ShapeError, match=f"at least one expert and rank 1, got {experts} and {rank}"):
        ExpertBank(llama, experts, rank)


def test_seeds_for_another_number_of_experts_are_refused(llama: BaseModel) -> None:
    for seeds in ([0], [0, 1, 2, 3]):
        with pytest.raises(ShapeError, match=rf"one per expert \(3\), got {len(seeds)}"):
            ExpertBank(llama, EXPERTS).initialise(seeds)


@torch.no_grad()
def test_two_banks_take_turns_on_one_base_model(llama: BaseModel) -> None:
    one = bank_of(llama)
    mixing = Mixing.population(EXPERTS, 2)
    first = run(one, mixing)
    other = micro_task.perturb(ExpertBank(llama, EXPERTS, rank=4), seed=1)
    second = run(other, mixing)
    assert not first.equal(second)
    assert run(one, mixing).equal(first)
    assert run(other, mixing).equal(second)


def test_equal_seeds_give_equal_starts_in_any_population(llama: BaseModel) -> None:
    together = ExpertBank(llama, EXPERTS)
    together.initialise([5, 6, 5])
    alone = ExpertBank(llama, 1)
    alone.initialise([6])
    assert together.flat[0].equal(together.flat[2])
    assert together.flat[1].equal(alone.flat[0])
    assert not together.flat[0].equal(together.flat[1])


def test_a_start_is_that_of_peft_in_distribution(llama: BaseModel) -> None:
    bank = ExpertBank(llama, 40, rank=8)
    bank.initialise(list(range(40)))
    layer = bank.layers["model.layers.0.mlp.down_proj"]
    bound = 32**-0.5  # kaiming_uniform_(a=sqrt(5)) over 32 inputs
    assert layer.A.abs().max() <= bound
    # a uniform on [-b, b] has standard deviation b / sqrt(3); 10,240 draws put it within 2 %
    assert float(layer.A.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.02)
    assert not layer.B.any()


def test_only_named_layers_are_wrapped(llama: BaseModel) -> None:
    bank = ExpertBank(llama, 1, rank=2, targets=["q_proj"])
    assert sorted(bank.layers) == [f"model.layers.{block}.self_attn.q_proj" for block in range(2)]
    assert bank.parameters_each() == 2 * 2 * (16 + 16)


def test_the_output_head_is_never_wrapped(base: BaseModel) -> None:
    bank = ExpertBank(base, 1)
    assert bank.layers
    assert not any("head" in path for path in bank.layers)


@pytest.mark.gpu
@torch.no_grad()
def test_identities_hold_in_bf16_on_a_gpu(folders: dict[str, Path]) -> None:
    from paretune.models.loading import load_base

    base = load_base(str(folders["llama"]), device="cuda", dtype=torch.bfloat16)
    expected = base.model(IDS.cuda()).logits
    bank = bank_of(base)
    ids = IDS.cuda()
    assert run(bank, Mixing.reference(len(ids)), ids).equal(expected)
    gates = torch.eye(EXPERTS, device="cuda").repeat_interleave(2, dim=0)
    by_rows, by_population = run(bank, Mixing.of_rows(gates), ids), run(bank, Mixing.population(EXPERTS, 2), ids)
    # bf16 has 8 bits: logits of up to 4 after two blocks of sums agree to a few of the last bits
    torch.testing.assert_close(by_rows.float(), by_population.float(), rtol=0.05, atol=0.15)
    assert (by_rows - expected).abs().max() > 0.5
    bank.unwrap()
