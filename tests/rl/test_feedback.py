"""What is known of what users want of prompts while a policy learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import micro_task
from paretune.core.errors import ConfigError, ShapeError
from paretune.core.ledger import Ledger
from paretune.core.preferences import FloatArray
from paretune.core.scores import Score, Scores
from paretune.core.task import Row, Task
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.policy import Policy
from paretune.objectives.scoring import Scorer
from paretune.rl import advantages
from paretune.rl.estimators import estimator_of
from paretune.rl.evaluation import evaluate
from paretune.rl.feedback import check_scalar, seen
from paretune.rl.learner import Learner
from paretune.rl.requests import BY_PROMPT, Requests
from paretune.rl.rollout import Prompts
from paretune.rl.rollouts import Environment
from paretune.rl.settings import LearnerSettings
from paretune.rl.shaping import log_clip
from paretune.rl.slots import Slots
from paretune.rl.trainees import Conditioned, Member, Population
from paretune.rl.weighting import Fixed

SETTINGS = LearnerSettings(1e-2, group_size=4, completions_per_update=16, epochs=2, average_decay=0.0)
TOLD = np.asarray([0.3, 0.7])


def turned(rows: Sequence[Row], preferences: FloatArray) -> FloatArray:
    """Want the other way round of prompts that begin with a letter after b: of some, not of all."""
    late = np.asarray([str(row["prompt"])[0] > "b" for row in rows])
    return np.where(late[None, :, None], preferences[:, None, ::-1], preferences[:, None])


def same(rows: Sequence[Row], preferences: FloatArray) -> FloatArray:
    return np.tile(preferences[:, None], (1, len(rows), 1))


def environment(task: Task, base: BaseModel, feedback: str, wanted: Any, score: Score | None = None) -> Environment:
    train = Prompts(task.splits["train"], [tuple(base.encode(str(row["prompt"]))) for row in task.splits["train"]])
    return Environment(
        score or Scorer(task.objectives), train, task.beta, micro_task.LENGTH, np.asarray([[0.0, 1.0]] * 2), train,
        feedback, wanted,
    )  # fmt: skip


def train(learner: Learner) -> Tensor:
    learner.train(lambda index, length: None)
    return learner.trainee.bank.flat.detach().clone()


def expert(task: Task, base: BaseModel, feedback: str, wanted: Any, score: Score | None = None, **own: Any) -> Tensor:
    bank = ExpertBank(base, 1, rank=2)
    bank.initialise([0])
    member = Member(TOLD, 3, (32,), Ledger(32))
    environs = environment(task, base, feedback, wanted, score)
    return train(Learner(Population(bank, [member]), environs, replace(SETTINGS, **own)))


def joint(task: Task, base: BaseModel, feedback: str, wanted: Any) -> Tensor:
    bank = ExpertBank(base, 2, rank=2)
    bank.initialise([0, 1])
    trainee = Conditioned(bank, None, np.eye(2), 3, (32,), Ledger(32))
    return train(Learner(trainee, environment(task, base, feedback, wanted), SETTINGS))


@pytest.mark.parametrize("kind", [expert, joint])
@pytest.mark.parametrize("feedback", ["utility", "oracle"])
def test_where_wishes_are_the_preference_training_is_bit_equal_to_that_of_who_is_told(
    task: Task, base: BaseModel, kind: Any, feedback: str
) -> None:
    assert torch.equal(kind(task, base, feedback, same), kind(task, base, "told", None))


def test_an_expert_learns_from_what_completions_are_worth_and_a_request_is_one_preference(
    task: Task, base: BaseModel
) -> None:
    told = expert(task, base, "told", turned)
    assert torch.equal(expert(task, base, "oracle", turned), told)
    assert (expert(task, base, "utility", turned) - told).abs().max() > 0.01


def test_a_bank_learns_otherwise_from_each_class(task: Task, base: BaseModel) -> None:
    made = [joint(task, base, feedback, turned) for feedback in ("told", "utility", "oracle")]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (made[one] - made[other]).abs().max() > 0.01


@pytest.mark.parametrize("advantages", ["leave_one_out", "grpo"])
def test_of_rewards_of_equal_worth_nothing_tells_which_they_are(task: Task, base: BaseModel, advantages: str) -> None:
    """Another pair of rewards with the same `w(x) . r`: half of it taken from one objective and given to the other."""
    scorer = Scorer(task.objectives)

    def other(rows: Sequence[Row], texts: Sequence[str]) -> Scores:
        found = scorer(rows, texts)
        weights = np.stack([turned([row], TOLD[None])[0, 0] for row in rows])
        moved = 0.5 * weights[:, 0] * found.rewards[:, 0]
        change = np.stack([-moved / weights[:, 0], moved / weights[:, 1]], axis=1)
        return found._replace(rewards=found.rewards + change)

    one = expert(task, base, "utility", turned, advantages=advantages)
    same_worth = expert(task, base, "utility", turned, other, advantages=advantages)
    torch.testing.assert_close(one, same_worth, rtol=1e-3, atol=1e-4)  # sums in another order, through Adam
    told = expert(task, base, "told", turned, other, advantages=advantages)
    assert (told - expert(task, base, "told", turned, advantages=advantages)).abs().max() > 0.01


def test_a_completion_that_lacks_a_wanted_reward_has_no_worth() -> None:
    rewards = np.asarray([[0.5, np.nan], [0.5, np.nan], [0.25, 0.75]])
    weights = np.asarray([[0.5, 0.5], [1.0, 0.0], [0.5, 0.5]])
    known = seen("utility", rewards, weights)
    assert known.isnan().tolist() == [[True, True], [False, True], [False, False]]
    assert seen("told", rewards, weights).isnan().tolist() == [[False, True], [False, True], [False, False]]


def test_what_reads_the_reward_of_each_objective_is_refused(task: Task, base: BaseModel) -> None:
    for word in ("gdpo", "k_sample_mean", "self_critical"):
        with pytest.raises(ConfigError, match=f"one number a completion.*got advantages paretune.rl.advantages:{word}"):
            check_scalar(estimator_of(getattr(advantages, word)), (), None)
    check_scalar(estimator_of(advantages.grpo), (), None)
    weighting = Fixed(TOLD, {}, np.asarray([[0.0, 1.0]] * 2))
    for slots, name in ((Slots(weightings=[weighting]), "a weighting"), (Slots(shaping=log_clip), "a shaping")):
        bank = ExpertBank(base, 1, rank=2)
        with pytest.raises(ConfigError, match=f"nothing else, where feedback is utility, got {name}"):
            Learner(
                Population(bank, [Member(TOLD, 0, (16,), Ledger(16))]), environment(task, base, "utility", same),
                SETTINGS, slots,
            )  # fmt: skip
        bank.unwrap()


def test_a_request_of_each_prompt_is_answered_by_its_own_policy(task: Task, base: BaseModel) -> None:
    bank = ExpertBank(base, 2, rank=2)
    bank.flat.copy_(torch.randn(bank.flat.shape, generator=torch.Generator().manual_seed(0)) * 0.3)
    points = np.asarray([[1.0, 0.0], [0.0, 1.0]])
    policy = Policy(base, bank, task.prompt_format, 4, micro_task.LENGTH, points, ["exact", "combined"], np.eye(2))
    rows, score = task.splits["test"], Scorer(task.objectives)
    first, second = evaluate(policy, rows, score, task.objective_names, samples=4)
    places = np.asarray([[0, 1, 0, 1], [0, 0, 0, 0]])
    users = np.asarray([[0.5, 0.5], [0.6, 0.4]])
    mixed, plain = evaluate(Requests(policy, users, places), rows, score, task.objective_names, samples=4)
    for prompt, expected in enumerate((first, second, first, second)):
        own = slice(4 * prompt, 4 * prompt + 4)
        assert mixed.completions[own] == expected.completions[own]
    assert (mixed.answer, plain.answer) == (BY_PROMPT, "exact")
    assert mixed.expert_weights.tolist() == [0.5, 0.5]
    assert (plain.identity, plain.completions) == (first.identity, first.completions)
    assert mixed.preference.tolist() == [0.5, 0.5]
    assert first.identity != mixed.identity
    with pytest.raises(ShapeError, match=r"as many prompts as are evaluated \(3\), got 4"):
        Requests.of(Requests(policy, users, places), 3)
    halves = Requests(policy, users, places).scaled([0.0, 0.5])
    assert halves.places.tolist() == [[0, 2, 0, 2], [1, 3, 1, 3], [0, 0, 0, 0], [1, 1, 1, 1]]
    assert halves.policy.expert_weights[halves.places[1]].tolist() == [[0.5, 0], [0, 0.5], [0.5, 0], [0, 0.5]]
