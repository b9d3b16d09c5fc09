from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import micro_task
from paretune.core.errors import BudgetError, ShapeError
from paretune.core.ledger import Ledger
from paretune.core.scores import Scores
from paretune.core.task import Task
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.policy import Policy
from paretune.objectives.scoring import Scorer
from paretune.rl.scored_completions import scored_completions

ROWS = 2  # prompts, each for both preferences
SAMPLES = 3


def policy_of(task: Task, base: BaseModel) -> Policy:
    bank = micro_task.perturb(ExpertBank(base, 2, rank=2))
    return Policy(base, bank, task.prompt_format, 4, 2, np.eye(2), ["combined"] * 2, np.eye(2))


def run(task: Task, policy: Policy, score: Any = None, columns: int = 2, **settings: Any) -> Any:
    rows = list(task.splits["test"][:ROWS]) * 2
    owners = [0] * ROWS + [1] * ROWS
    return scored_completions(policy, rows, owners, score or Scorer(task.objectives), columns, SAMPLES, **settings)


def test_what_is_charged_is_what_was_made(task: Task, base: BaseModel) -> None:
    policy, ledger = policy_of(task, base), Ledger(12)
    made, scores = run(task, policy, ledger=ledger, timed=True)
    prompts = [str(row["prompt"]) for row in task.splits["test"][:ROWS]] * 2
    alone = policy.generate(prompts, [0, 0, 1, 1], SAMPLES, seed=0, reference=True)
    assert made.texts == alone.texts
    values = dict(zip(map(micro_task.text_of, micro_task.completions()), micro_task.rewards(), strict=True))
    np.testing.assert_allclose(scores.rewards, [values[text] for text in made.texts])
    tokens, read = int(made.lengths.sum()), sum(len(base.encode(prompt)) for prompt in prompts)
    flops = policy.flops([0, 1], tokens + read, reference_passes=1, prompt_tokens=read)
    assert ledger.counts == {"prompts": 4, "completions": 12, "tokens": tokens, "reward_calls": 24, "flops": flops}
    assert (ledger.scored, ledger.missing) == ([12, 12], [0, 0])
    assert ledger.seconds.keys() == {"sampling", "scoring"}


def test_missing_rewards_and_what_went_wrong_reach_the_ledger(task: Task, base: BaseModel) -> None:
    def score(rows: Any, texts: Any) -> Scores:
        rewards = np.zeros((len(texts), 2))
        statuses = np.full(rewards.shape, "ok", dtype="<U12")
        rewards[:5, 1], statuses[:5, 1] = np.nan, "raised"
        return Scores(rewards, statuses, ("", "second: it broke"))

    ledger = Ledger()
    run(task, policy_of(task, base), score, ledger=ledger)
    assert (ledger.scored, ledger.missing, ledger.faults) == ([12, 7], [0, 5], ["", "second: it broke"])
    assert not ledger.seconds


def test_a_budget_stops_before_anything_is_sampled(task: Task, base: BaseModel) -> None:
    def score(rows: Any, texts: Any) -> Scores:
        raise AssertionError("nothing is to be scored")

    with pytest.raises(BudgetError, match="got 0 spent and 12 asked for"):
        run(task, policy_of(task, base), score, ledger=Ledger(11))


def test_a_score_of_other_objectives_is_refused(task: Task, base: BaseModel) -> None:
    with pytest.raises(ShapeError, match=r"score must have one column per objective \(3\), got 2\. Name those"):
        run(task, policy_of(task, base), columns=3)
