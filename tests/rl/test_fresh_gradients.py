"""Gradients of the objectives of policies as they are, held against enumerated ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import micro_task
from paretune.core.errors import ConfigError
from paretune.core.ledger import Ledger
from paretune.core.preferences import corners
from paretune.core.task import Task
from paretune.methods.training import environment
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.rl.fresh_gradients import fresh_gradients
from paretune.rl.trainees import Member, Population

STEEP = 0.5  # a beta under which the KL counts as much as the rewards do


def population(base: BaseModel, size: int, seeds: tuple[int, int] = (1, 2)) -> Population:
    """Return two policies away from the base model, both of them wanted for the first objective alone."""
    bank = micro_task.perturb(ExpertBank(base, 2, 2), 0.1)
    return Population(bank, [Member(corners(2)[0], seed, (size,), Ledger()) for seed in seeds])


def exact(base: BaseModel, bank: ExpertBank, beta: float) -> Tensor:
    """Return the gradients of `-J_k` over all completions of all training prompts, `[K, M, P]`."""
    rows = []
    for preference in ([1.0, 0.0], [0.0, 1.0]):
        for member in ([1.0, 0.0], [0.0, 1.0]):
            for prompt in micro_task.PROMPTS["train"]:
                ids = [micro_task.TOKENS.index(token) for token in prompt.split()]
                reference = micro_task.log_probs(base, bank, [0.0, 0.0], ids).detach()
                own = micro_task.log_probs(base, bank, member, ids)
                loss = -micro_task.value(own, reference, preference, beta) / len(micro_task.PROMPTS["train"])
                loss.backward()
            rows.append(bank.take_gradients()[member.index(1.0)])
    return torch.stack(rows).view(2, 2, -1)


def test_they_are_those_of_expected_rewards_less_kl(task: Task, base: BaseModel) -> None:
    """A sixth of an estimate from 4,096 completions is noise; without the KL most of it would be missing."""
    trained = population(base, 4096)
    given = replace(environment(base, task), beta=STEEP)
    found, expected = fresh_gradients(trained, given, 4096, 8), exact(base, trained.bank, STEEP)
    apart = (found - expected).norm(dim=2) / expected.norm(dim=2)
    assert float(apart.max()) < 0.3
    without = exact(base, trained.bank, 0.0)
    assert float(((without - expected).norm(dim=2) / expected.norm(dim=2)).min()) > 0.8


def test_they_move_nothing_cost_what_they_sample_and_repeat_under_a_seed(task: Task, base: BaseModel) -> None:
    trained, given = population(base, 32), environment(base, task)
    before = trained.bank.flat.clone()
    found = fresh_gradients(trained, given, 32, 4)
    assert trained.bank.flat.equal(before)
    assert not trained.bank.take_gradients().any()
    for member in trained.members:
        assert (member.ledger.completions, member.ledger.counts["prompts"]) == (32, 8)
        assert member.ledger.counts["flops"] > 0
    assert fresh_gradients(trained, given, 32, 4).equal(found)
    torch.testing.assert_close(fresh_gradients(trained, given, 32, 4, micro_batch=8), found, rtol=1e-4, atol=1e-6)
    first, second = trained.members
    other = fresh_gradients(Population(trained.bank, [replace(first, seed=3), second]), given, 32, 4)
    assert bool((other[:, 0] != found[:, 0]).any())
    torch.testing.assert_close(other[:, 1], found[:, 1], rtol=1e-4, atol=1e-6)


def test_an_objective_that_only_rounding_moves_says_nothing(task: Task, base: BaseModel) -> None:
    """Rewards that differ by 1e-9 of their range, no KL: gradients of exactly 0, which no metric can blow up."""
    given = environment(base, task)

    def score(rows: object, texts: list[str]) -> object:
        made = given.score(rows, texts)  # type: ignore[arg-type]  # handed through
        constant = 0.5 + 1e-9 * np.random.default_rng(0).standard_normal(len(texts))
        return made._replace(rewards=np.column_stack([made.rewards[:, 0], constant]))

    found = fresh_gradients(population(base, 32), replace(given, beta=0.0, score=score), 32, 4)  # type: ignore[arg-type]
    assert not found[1].any()
    assert found[0].any()


def test_parts_of_a_group_are_refused(task: Task, base: BaseModel) -> None:
    with pytest.raises(ConfigError, match="completions_per_update must be a multiple of group_size"):
        fresh_gradients(population(base, 12), environment(base, task), 10, 4)
