"""Gradients of each objective, held against autograd on losses written by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

import micro_task
from paretune.core.errors import NonFiniteError, ShapeError
from paretune.core.task import Task
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.mixing import Mixing
from paretune.relations.gradients import gram_blocks
from paretune.rl import objective_gradients as module
from paretune.rl.advantages import leave_one_out
from paretune.rl.evaluation import reference_policy
from paretune.rl.objective_gradients import gram_of, objective_gradients, up_projections

Sampled = tuple[list[tuple[int, ...]], Tensor, Tensor, Tensor]
SAMPLES = 8


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
