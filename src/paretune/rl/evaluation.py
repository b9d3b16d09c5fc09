"""Evaluating policies: sample, score, record. Methods that search use it (charged), and so does the runner (free)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from paretune.core.digests import bytes_digest
from paretune.core.ledger import Ledger
from paretune.core.scores import Score, Scores, check_statuses
from paretune.core.task import Row, Task
from paretune.models.base import BaseModel
from paretune.models.completions import Completions
from paretune.models.policy import Policy
from paretune.records.evaluation import EvaluationRecord
from paretune.rl.requests import Requests
from paretune.rl.scored_completions import scored_completions


def reference_policy(base: BaseModel, task: Task) -> Policy:
    """Return the base model as a policy: one row, no expert, no preference."""
    preference = np.full((1, len(task.objectives)), np.nan)
    return Policy(
        base, None, task.prompt_format, task.max_prompt_tokens, task.max_completion_tokens, preference, ["reference"],
        np.zeros((1, 0)),
    )  # fmt: skip


def evaluate(
    policy: Policy | Requests,
    rows: Sequence[Row],
    score: Score,
    objectives: Sequence[str],
    audit: Sequence[str] = (),
    samples: int = 1,
    seed: int = 0,
    split: str = "test",
    ledger: Ledger | None = None,
    progress: Callable[[int], None] = lambda completions: None,
) -> tuple[EvaluationRecord, ...]:
    """Evaluate each of a policy's M preferences on all prompts, at temperature 1 so that KL means the same policy.

    Preferences answered by the same policy (`Policy.identity`) are sampled once: with common noise they would give the
    same completions again.

    Args:
        policy: M preferences; or requests, where a preference's prompts are answered by several policies.
        rows: Prompts with their columns.
        score: Scores completions on objectives and audit objectives, in this order.
        objectives: Names of the K objectives.
        audit: Names of the audit objectives.
        samples: Completions per prompt.
        seed: Of the noise; the same for all policies, which makes their differences paired.
        split: Which split the prompts are from.
        ledger: Charged before sampling where a method evaluates for itself; None where evaluation is free.
        progress: Told of completions as they are made.

    Returns:
        One record per preference, in order.

    Raises:
        BudgetError: If the ledger's budget does not allow it.
        ShapeError: If the score does not have one column per objective.
        RewardError: If an objective was never scored, where evaluation is free.
    """
    answers: dict[bytes, EvaluationRecord] = {}
    faults: dict[int, str] = {}
    records, asked = [], Requests.of(policy, len(rows))
    for index in range(len(asked)):
        identity, places = asked.identity(index), asked.places[index].tolist()
        if identity not in answers:
            columns = len(objectives) + len(audit)
            made, scores = scored_completions(asked.policy, rows, places, score, columns, samples, seed, ledger)
            faults |= {k: fault for k, fault in enumerate(scores.faults) if fault}
            answers[identity] = _record(asked, index, rows, made, scores, objectives, audit, split)
            progress(len(made.texts))
        records.append(
            replace(
                answers[identity],
                preference=asked.preferences[index],
                answer=asked.answer(index),
                expert_weights=asked.expert_weights(index),
            )
        )
    if ledger is None:  # else whoever searches may go on, and its stage is checked as a whole
        names = enumerate((*objectives, *audit))
        check_statuses(
            [each.statuses for each in answers.values()], [faults.get(k, f"{name} said None") for k, name in names]
        )
    return tuple(records)


def _record(
    asked: Requests, index: int, rows: Sequence[Row], completions: Completions, scores: Scores,
    objectives: Sequence[str], audit: Sequence[str], split: str,
) -> EvaluationRecord:  # fmt: skip
    of_prompt = [prompt for _, prompt, _ in completions.row_ids]
    return EvaluationRecord(
        split=split,
        preference=asked.preferences[index],
        answer=asked.answer(index),
        expert_weights=asked.expert_weights(index),
        identity=bytes_digest(asked.identity(index)),
        objectives=tuple(objectives),
        audit=tuple(audit),
        prompt_ids=tuple(str(rows[prompt]["prompt_id"]) for prompt in of_prompt),
        samples=np.asarray([sample for _, _, sample in completions.row_ids], dtype=np.int64),
        prompts=tuple(str(rows[prompt]["prompt"]) for prompt in of_prompt),
        completions=completions.texts,
        token_ids=tuple(completions.ids(row) for row in range(len(of_prompt))),
        finish=completions.finish,
        log_probs=completions.log_probs.double().sum(dim=1).numpy(),
        reference_log_probs=completions.reference_log_probs.double().sum(dim=1).numpy(),
        rewards=scores.rewards,
        statuses=scores.statuses,
        latency_seconds=completions.latency_seconds,
    )
