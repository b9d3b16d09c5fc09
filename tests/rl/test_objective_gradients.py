"""Gradients of each objective, held against autograd on losses written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import micro_task
from paretune.core.errors import ConfigError, MixingError, NonFiniteError, ShapeError, UnknownNameError
from paretune.core.task import Task
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.mixing import Mixing
from paretune.models.scoring import completion_log_probs
from paretune.relations.gradients import gram_blocks
from paretune.rl import objective_gradients as module
from paretune.rl.advantages import leave_one_out
from paretune.rl.evaluation import reference_policy
from paretune.rl.losses import policy_gradient_loss, scalarise
from paretune.rl.objective_gradients import (
    PopulationGradients,
    gram_in_metric,
    gram_of,
    objective_gradients,
    population_gradients,
    up_projections,
)
from paretune.rl.token_terms import TokenTerms

Sampled = tuple[list[tuple[int, ...]], Tensor, Tensor, Tensor]
SAMPLES = 8
PROMPTS = [(1, 2, 3), (4,), (1, 2, 3), (4,), (5, 5), (1, 2, 3), (2, 2), (2, 2), (6, 1), (6, 1), (7,), (3, 1)]
TOKENS = torch.tensor([[1, 2, 0], [3, 0, 0], [4, 5, 6], [0, 0, 0], [7, 7, 0], [2, 0, 0], [5, 0, 0], [6, 6, 1],
                       [4, 2, 0], [0, 0, 0], [3, 3, 3], [1, 0, 0]])  # fmt: skip
LENGTHS = torch.tensor([3, 2, 3, 1, 3, 2, 2, 3, 3, 1, 3, 2])
ADVANTAGES = torch.randn(12, 3, generator=torch.Generator().manual_seed(1))
MIXING = Mixing.population(3, 4)
EXACT = 1e-5  # fp32 sums in another order, relative to the length of the gradient


@pytest.fixture
def fresh(base: BaseModel) -> ExpertBank:
    bank = ExpertBank(base, 1)
    bank.initialise([0])
    return bank


def sampled(task: Task, base: BaseModel, prompts: int = 4) -> Sampled:
    """Sample completions of the base model; return prompts, tokens, lengths and advantages in the two objectives."""
    policy = reference_policy(base, task)
    made = policy.generate([str(row["prompt"]) for row in task.splits["train"][:prompts]], samples=SAMPLES, seed=3)
    table = dict(zip(map(micro_task.text_of, micro_task.completions()), micro_task.rewards(), strict=True))
    rewards = torch.tensor(np.stack([table[text] for text in made.texts]))
    return list(made.prompt_ids), made.token_ids, made.lengths, leave_one_out(rewards, SAMPLES)


def test_gradients_are_those_of_a_loss_written_by_hand(task: Task, base: BaseModel, fresh: ExpertBank) -> None:
    prompts, tokens, lengths, advantages = sampled(task, base)
    found = objective_gradients(fresh, prompts, tokens, lengths, advantages, up_projections(fresh))
    for k in range(2):
        total = torch.zeros(())
        for row, prompt in enumerate(prompts):  # one completion at a time: no padding, no cache, no batch
            ids = [*prompt, *tokens[row, : lengths[row]].tolist()]
            with fresh.using(Mixing.population(1, 1)):
                logits = base.model(torch.tensor([ids]), use_cache=False).logits[0].log_softmax(dim=-1)
            picked = [logits[place, token] for place, token in list(enumerate(ids[1:]))[len(prompt) - 1 :]]
            total = total + float(advantages[row, k]) * torch.stack(picked).sum() / len(prompts)
        total.backward()  # of the expected reward, not of a loss: it points upwards
        expected = torch.cat([layer.B.grad.flatten() for layer in fresh.layers.values() if layer.B.grad is not None])
        fresh.take_gradients()
        torch.testing.assert_close(found[k], expected, rtol=1e-4, atol=1e-6)  # float32, sums in another order
    assert found.abs().max() > 1e-3


def test_only_the_up_projections_of_a_fresh_expert_have_a_gradient(
    task: Task, base: BaseModel, fresh: ExpertBank
) -> None:
    prompts, tokens, lengths, advantages = sampled(task, base)
    down = [layer.A for layer in fresh.layers.values()]
    assert not objective_gradients(fresh, prompts, tokens, lengths, advantages, down).any()
    assert objective_gradients(fresh, prompts, tokens, lengths, advantages, up_projections(fresh)).any()


def test_a_step_along_a_gradient_raises_its_objective(task: Task, base: BaseModel, fresh: ExpertBank) -> None:
    prompts, tokens, lengths, advantages = sampled(task, base, prompts=8)
    parameters = up_projections(fresh)
    for k in range(2):
        gradient = objective_gradients(fresh, prompts, tokens, lengths, advantages, parameters)[k]
        values = []
        for step in (0.0, 0.1):
            start = 0
            with torch.no_grad():
                for parameter in parameters:
                    part = gradient[start : start + parameter.numel()].view(parameter.shape)
                    parameter.copy_(step * part / gradient.norm())
                    start += parameter.numel()
            value = 0.0
            for row in task.splits["train"]:
                ids = base.encode(str(row["prompt"]))
                table = micro_task.log_probs(base, fresh, [1.0], ids).exp().detach().double().numpy()
                value += float(table @ micro_task.rewards()[:, k]) / len(task.splits["train"])
            values.append(value)
        assert values[1] > values[0] + 0.01
        fresh.initialise([0])


def test_an_objective_turned_round_has_the_opposite_gradient(task: Task, base: BaseModel, fresh: ExpertBank) -> None:
    prompts, tokens, lengths, advantages = sampled(task, base)
    parameters = up_projections(fresh)
    before = objective_gradients(fresh, prompts, tokens, lengths, advantages, parameters)
    after = objective_gradients(fresh, prompts, tokens, lengths, advantages * torch.tensor([1.0, -1.0]), parameters)
    assert after[0].equal(before[0])
    assert after[1].equal(-before[1])


@pytest.mark.parametrize("columns", [2**18, 70])
def test_inner_products_are_the_same_in_parts(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COLUMNS", columns)
    gradients = [torch.randn(2, 101, generator=torch.Generator().manual_seed(seed)) for seed in range(5)]
    blocks = gram_of(gradients)
    np.testing.assert_allclose(blocks, gram_blocks(torch.stack(gradients).numpy()), rtol=1e-9, atol=1e-9)  # rounding
    assert all(first != second for first, second in pairwise(blocks[:, 0, 0, 1]))


def test_what_does_not_fit_is_refused(task: Task, base: BaseModel, fresh: ExpertBank) -> None:
    prompts, tokens, lengths, advantages = sampled(task, base)
    parameters = up_projections(fresh)
    with pytest.raises(ShapeError, match=r"advantages must have one row per completion \(32\), got shape \[31, 2\]"):
        objective_gradients(fresh, prompts, tokens, lengths, advantages[1:], parameters)
    with pytest.raises(NonFiniteError, match="gradients of objectives must be finite"):
        objective_gradients(fresh, prompts, tokens, lengths, advantages * torch.inf, parameters)
    two = ExpertBank(base, 2)
    with pytest.raises(ShapeError, match="bank must have one expert, got 2"):
        objective_gradients(two, prompts, tokens, lengths, advantages, up_projections(two))


@pytest.fixture(params=["llama", "gpt2"])
def three(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ExpertBank]:
    """Three experts that differ from the base model, of `Linear` and of `Conv1D` layers."""
    from paretune.models.loading import load_base

    model = load_base(str(micro_task.save_model(tmp_path / "model", request.param)), device="cpu")
    bank = ExpertBank(model, 3, rank=2)
    bank.alphas = torch.tensor([4.0, 2.0, 1.0])
    yield micro_task.perturb(bank)
    bank.unwrap()


def of_all(
    bank: ExpertBank, engine: Any, micro_batch: int = 0, advantages: Tensor = ADVANTAGES, **parts: Any
) -> PopulationGradients:
    return population_gradients(bank, MIXING, PROMPTS, TOKENS, LENGTHS, advantages, 4, engine, micro_batch, **parts)


def scalar_gradient(bank: ExpertBank, objective_weights: Tensor) -> Tensor:
    """Return the gradient of the weighed loss as the learner makes it, `[M, P]`."""
    with bank.using(MIXING):
        log_probs = completion_log_probs(bank.base, bank, MIXING, PROMPTS, TOKENS, LENGTHS)
        policy_gradient_loss(log_probs, scalarise(ADVANTAGES, objective_weights.expand(12, 3)), 4).backward()
    return bank.take_gradients()


def assert_same(got: Tensor, expected: Tensor, within: float = 1) -> None:
    lengths = expected.norm(dim=-1)
    assert (lengths > 0.01).all()
    assert ((got - expected).norm(dim=-1) <= within * EXACT * lengths).all()


@pytest.mark.parametrize("micro_batch", [0, 2, 3])
def test_both_engines_find_the_same_gradients(three: ExpertBank, micro_batch: int) -> None:
    one, each = of_all(three, "one_backward", micro_batch), of_all(three, "per_objective")
    assert (one.engine, each.engine) == ("one_backward", "per_objective")
    assert one.gradients.shape == (3, 3, three.parameters_each())
    assert_same(one.gradients, each.gradients)
    torch.testing.assert_close(one.log_probs, each.log_probs, rtol=0, atol=2e-5)
    assert_same(of_all(three, "per_objective", micro_batch).gradients, each.gradients)


@pytest.mark.parametrize("engine", ["one_backward", "per_objective"])
def test_weighed_gradients_are_the_gradient_of_the_weighed_loss(three: ExpertBank, engine: str) -> None:
    weights = torch.tensor([0.2, 0.5, 0.3])
    got = (of_all(three, engine).gradients * weights[:, None, None]).sum(dim=0)
    assert_same(got, scalar_gradient(three, weights))


@pytest.mark.parametrize("engine", ["one_backward", "per_objective"])
def test_one_objective_is_the_plain_gradient(three: ExpertBank, engine: str) -> None:
    got = of_all(three, engine, advantages=ADVANTAGES[:, :1]).gradients
    assert got.shape[0] == 1
    assert_same(got[0], scalar_gradient(three, torch.tensor([1.0, 0.0, 0.0])))


def test_gradient_checkpointing_changes_no_engine(tmp_path: Path) -> None:
    from paretune.models.loading import load_base

    model = load_base(str(micro_task.save_model(tmp_path / "model")), device="cpu")
    bank = micro_task.perturb(ExpertBank(model, 3, rank=2))
    expected = of_all(bank, "per_objective").gradients
    model.model.activation_checkpointing_enable()
    model.model.train()
    try:
        for engine in ("one_backward", "per_objective"):
            assert_same(of_all(bank, engine).gradients, expected, within=2)  # sums made again in another order
    finally:
        model.model.activation_checkpointing_disable()
        model.model.disable_input_require_grads()
        model.model.eval()
        bank.unwrap()


def test_some_members_in_their_order(three: ExpertBank) -> None:
    mixing = Mixing.population(3, 6, members=(2, 0))
    one, each = (
        population_gradients(three, mixing, PROMPTS, TOKENS, LENGTHS, ADVANTAGES, 6, engine).gradients
        for engine in ("one_backward", "per_objective")
    )
    assert one.shape[1] == 2
    assert_same(one, each)
    alone = population_gradients(
        three, Mixing.population(3, 6, members=(2,)), PROMPTS[:6], TOKENS[:6], LENGTHS[:6], ADVANTAGES[:6], 6
    )
    assert_same(one[:, 0], alone.gradients[:, 0])


def test_parts_of_an_update_add_up(three: ExpertBank) -> None:
    expected = of_all(three, "auto").gradients
    total = torch.zeros_like(expected)
    for rows in (torch.tensor([0, 4, 8]), torch.tensor([1, 2, 3, 5, 6, 7, 9, 10, 11])):
        mixing = Mixing.population(3, len(rows) // 3)
        prompts = [PROMPTS[row] for row in rows.tolist()]
        total += population_gradients(
            three, mixing, prompts, TOKENS[rows], LENGTHS[rows], ADVANTAGES[rows], 4
        ).gradients  # fmt: skip
    assert_same(total, expected)


def test_the_engine_is_chosen_by_the_number_of_objectives_and_told(three: ExpertBank) -> None:
    assert of_all(three, "auto").engine == "one_backward"
    assert of_all(three, "auto", advantages=ADVANTAGES[:, :1]).engine == "per_objective"


def terms(entropy: bool = True) -> TokenTerms:
    draws = torch.Generator().manual_seed(5)
    reference, sampled = (-torch.rand(12, 3, generator=draws) for _ in range(2))
    inside = torch.arange(3)[None] < LENGTHS[:, None]
    return TokenTerms(
        torch.rand(12, generator=draws), torch.rand(12, generator=draws), reference * inside, sampled * inside, True,
        entropy,
    )  # fmt: skip


@pytest.mark.parametrize("micro_batch", [0, 2])
@pytest.mark.parametrize("entropy", [False, True])
def test_terms_of_tokens_take_a_second_backward_pass_and_are_exact(
    three: ExpertBank, micro_batch: int, entropy: bool
) -> None:
    own = terms(entropy)
    two, each = (of_all(three, engine, micro_batch, terms=own) for engine in ("auto", "per_objective"))
    assert (two.engine, each.engine) == ("two_backward", "per_objective")
    assert_same(two.gradients, each.gradients)
    plain = of_all(three, "auto", micro_batch).gradients
    added = two.gradients - plain
    assert added[0].norm() > 0.1 * plain[0].norm()
    assert_same(added[0], added[2], within=10)  # every objective has the terms, once


@pytest.mark.parametrize("micro_batch", [0, 2])
def test_what_tokens_count_for_all_objectives_keeps_one_backward_pass_exact(
    three: ExpertBank, micro_batch: int
) -> None:
    factors = torch.rand(12, 3, generator=torch.Generator().manual_seed(6))
    one, each = (
        of_all(three, engine, micro_batch, token_factors=factors) for engine in ("one_backward", "per_objective")
    )
    assert_same(one.gradients, each.gradients)
    assert (one.gradients - of_all(three, "auto").gradients).norm() > 0.1 * one.gradients.norm()


def test_an_engine_that_cannot_make_the_gradients_is_refused(three: ExpertBank) -> None:
    with pytest.raises(ConfigError, match="got 'one_backward' for losses with terms of tokens"):
        of_all(three, "one_backward", terms=terms())
    with pytest.raises(ConfigError, match="got 'two_backward' for losses with no terms of tokens"):
        of_all(three, "two_backward")


@pytest.mark.parametrize("engine", ["one_backward", "per_objective"])
def test_autocast_changes_digits_only(three: ExpertBank, engine: str) -> None:
    expected = of_all(three, "per_objective").gradients
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = of_all(three, engine).gradients
    cosines = torch.nn.functional.cosine_similarity(got, expected, dim=-1)
    assert cosines.min() > 0.99  # bf16 has three digits
    assert not got.equal(expected)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_model_in_bf16_gives_the_same_in_fewer_digits(device: str, tmp_path: Path) -> None:
    from paretune.models.loading import load_base

    folder = str(micro_task.save_model(tmp_path / "model"))
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        bank = micro_task.perturb(ExpertBank(load_base(folder, device, dtype), 3, rank=2, alpha=4.0))
        found.append([of_all(bank, engine).gradients.cpu() for engine in ("one_backward", "per_objective")])
        bank.unwrap()
    assert_same(*found[0])
    for exact, rounded in zip(*found, strict=True):
        assert rounded.dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(rounded, exact, dim=-1).min() > 0.99  # bf16 has three digits


def test_the_bank_keeps_the_gradients_it_has(three: ExpertBank) -> None:
    scalar_gradient(three, torch.ones(3))
    for engine in ("one_backward", "per_objective"):
        of_all(three, engine)
    assert not three.take_gradients().any()


def test_gradients_that_cannot_be_made_are_refused(three: ExpertBank) -> None:
    with pytest.raises(
        UnknownNameError, match="engine must be one of auto, one_backward, per_objective, two_backward, got"
    ):
        of_all(three, "fast")
    with pytest.raises(MixingError, match="must be a population"):
        population_gradients(
            three, Mixing.of_rows(torch.ones(12, 3)), PROMPTS, TOKENS, LENGTHS, ADVANTAGES, 4, "per_objective"
        )
    with pytest.raises(ShapeError, match=r"one row for each of the 12 rows of the mixing, got \[11, 3\]"):
        of_all(three, "auto", advantages=ADVANTAGES[1:])
    with pytest.raises(NonFiniteError, match="gradients of objectives must be finite"):
        of_all(three, "one_backward", advantages=ADVANTAGES * torch.inf)


@pytest.mark.parametrize("columns", [2**18, 7])
def test_inner_products_are_taken_in_the_metric_of_the_optimiser(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COLUMNS", columns)
    draws = torch.Generator().manual_seed(0)
    gradients, diagonal = torch.randn(3, 2, 11, generator=draws), torch.rand(2, 11, generator=draws)
    got = gram_in_metric(gradients, diagonal)
    assert got.dtype == np.float64
    for member in range(2):
        jacobian = gradients[:, member].double().numpy()
        expected = jacobian @ np.diag(diagonal[member].double().numpy()) @ jacobian.T
        np.testing.assert_allclose(got[member], expected, rtol=1e-12, atol=1e-12)


def test_a_metric_that_is_none_is_refused() -> None:
    gradients = torch.ones(3, 2, 5)
    with pytest.raises(ShapeError, match=r"diagonal must be \[M, P\] .* got \[5\] and \[3, 2, 5\]"):
        gram_in_metric(gradients, torch.ones(5))
    with pytest.raises(ShapeError, match=r"diagonal must be non-negative, got -1.0"):
        gram_in_metric(gradients, -torch.ones(2, 5))
    with pytest.raises(NonFiniteError, match="inner products of gradients must be finite"):
        gram_in_metric(gradients, torch.full((2, 5), torch.nan))
