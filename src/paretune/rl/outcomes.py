"""What policies do, exactly where all completions can be listed, by sampling where a policy can only be sampled."""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from paretune.core.digests import digest
from paretune.core.errors import EnumerationError, RewardError, ShapeError, TaskError
from paretune.core.preferences import FloatArray, das_dennis
from paretune.core.scores import Score
from paretune.core.task import Enumeration, Row, Task
from paretune.models.base import BaseModel
from paretune.models.loading import load_base
from paretune.models.policy import Policy
from paretune.optimum.exact import optimal_outcome, outcome
from paretune.records.evaluation import EvaluationRecord
from paretune.records.outcomes import SCALES, OutcomeRecord, TruthRecord, front_divisions
from paretune.rl.evaluation import evaluate, reference_policy
from paretune.rl.requests import Requests

SAMPLES = 64  # of each prompt where a policy can only be sampled
SUM_TOLERANCE = 1e-3  # of the probabilities of all completions


@dataclass(frozen=True, eq=False)
class PromptScores:
    """What R requests get on P prompts.

    Attributes:
        rewards: Expected rewards `[R, P, K]`.
        kl: KL to the base model in nats `[R, P]`; NaN where there is none.
        policies: How many different policies were scored.
        reason: Why rewards are no exact expectations; empty where they are.
    """

    rewards: FloatArray
    kl: FloatArray
    policies: int
    reason: str = ""


def all_texts(base: BaseModel, enumeration: Enumeration) -> list[str]:
    """Return the texts of all completions, in the order of `Policy.completion_table`."""
    sequences = itertools.product(enumeration.token_ids, repeat=enumeration.length)
    return [base.decode(list(ids)) for ids in sequences]


def all_rewards(rows: Sequence[Row], texts: Sequence[str], score: Score, objectives: int) -> FloatArray:
    """Score every completion of every prompt with the task's own reward functions, `[P, Y, K]`.

    Raises:
        RewardError: If a reward is missing: an expectation needs all of them.
    """
    tables = []
    for row in rows:
        scores = score([row] * len(texts), texts)
        rewards = scores.rewards[:, :objectives]
        if np.isnan(rewards).any():
            faults = sorted(set(scores.statuses[:, :objectives][np.isnan(rewards)].tolist()))
            raise RewardError(
                f"rewards of all completions must be there, got {int(np.isnan(rewards).sum())} missing "
                f"({', '.join(faults)}). Correct the reward function."
            )
        tables.append(rewards)
    return np.stack(tables)


def reference_table(base: BaseModel, task: Task, rows: Sequence[Row]) -> FloatArray:
    """Return the log-probability of every completion under the base model, `[P, Y]`."""
    enumeration = enumeration_of(task)
    prompts = [str(row["prompt"]) for row in rows]
    table = reference_policy(base, task).completion_table(
        prompts, enumeration.token_ids, enumeration.length, [0] * len(prompts)
    )
    return _whole(table, "the base model")


def _whole(table: Tensor, whose: str) -> FloatArray:
    """Return log-probabilities of all completions `[P, Y]` as numbers, of which each row must sum to 1."""
    values = np.asarray(table.double().numpy())
    sums = np.exp(values).sum(axis=1)
    far = sums[np.argmax(np.abs(sums - 1))]
    if not abs(far - 1) <= SUM_TOLERANCE:
        raise ShapeError(
            f"probabilities of all listed completions must sum to 1 for every prompt, got {far:.4g} from {whose}. List "
            "every token that the model can say, and let the policy return normalised log-probabilities."
        )
    return values


_TABLES: dict[str, tuple[FloatArray, FloatArray]] = {}  # of the last instance: cells of one come after another


def tables(task: Task, rows: Sequence[Row], score: Score) -> tuple[FloatArray, FloatArray]:
    """Return all completions under the base model, `[P, Y]`, and their rewards, `[P, Y, K]`; the last are kept.

    Raises:
        TaskError: If the task's completions cannot be listed.
        RewardError: If a reward is missing.
    """
    key = digest([task.training_key(), list(rows)])
    if key not in _TABLES:
        base = load_base(task.model)
        made = (
            reference_table(base, task, rows),
            all_rewards(rows, all_texts(base, enumeration_of(task)), score, len(task.objectives)),
        )
        _TABLES.clear()
        _TABLES[key] = made
    return _TABLES[key]


def enumeration_of(task: Task) -> Enumeration:
    """Return how a task's completions are listed.

    Raises:
        TaskError: If they cannot be.
    """
    if task.enumeration is None:
        raise TaskError(
            f"task '{task.name}' must have completions that can be listed, got an ordinary language model. Use a "
            "controlled task."
        )
    return task.enumeration


def truth(
    log_reference: FloatArray,
    rewards: FloatArray,
    preferences: FloatArray,
    beta: float,
    prompt_preferences: FloatArray | None = None,
) -> TruthRecord:
    """Return what can be reached.

    Args:
        log_reference: All completions under the base model `[P, Y]`.
        rewards: `[P, Y, K]`.
        preferences: Of the study, `[M, K]`.
        beta: KL coefficient.
        prompt_preferences: What the users of these preferences want of each prompt, `[M, P, K]`; None where that is the
            preference itself. The front is that of the preferences themselves.
    """
    objectives = rewards.shape[2]
    front = das_dennis(objectives, front_divisions(objectives))
    wanted = preferences if prompt_preferences is None else prompt_preferences
    best = optimal_outcome(log_reference, rewards, wanted, beta)
    return TruthRecord(
        beta=beta,
        reference_rewards=outcome(log_reference, log_reference, rewards).rewards,
        preferences=preferences,
        rewards=best.rewards,
        kl=best.kl,
        front_preferences=front,
        front_scores=optimal_outcome(log_reference, rewards, front, beta).scores(beta),
        prompt_preferences=prompt_preferences,
    )


def outcomes(
    policy: Policy | Requests,
    rows: Sequence[Row],
    enumeration: Enumeration,
    log_reference: FloatArray,
    rewards: FloatArray,
    scales: Sequence[float] = SCALES,
    seed: int = 0,
    progress: Callable[[int], None] = lambda completions: None,
) -> OutcomeRecord:
    """Score a policy's M preferences at every scale; equal policies are scored once.

    Args:
        policy: M preferences; or requests, where a preference's prompts are answered by several policies.
        rows: P prompts.
        enumeration: How completions are listed.
        log_reference: All completions under the base model `[P, Y]`.
        rewards: `[P, Y, K]`.
        scales: What the expert weights are multiplied by.
        seed: Of the samples, where the policy can only be sampled.
        progress: Told after each policy, so that a stop is noticed.

    Raises:
        ShapeError: If the probabilities of all completions do not sum to 1.
    """
    scaled = Requests.of(policy, len(rows)).scaled(scales)  # preference-major: M blocks of S rows
    began = time.perf_counter()
    found = listed_scores(scaled, rows, enumeration, log_reference, rewards, seed, progress)
    shape = (len(policy), len(scales), len(rows))
    return OutcomeRecord(
        preferences=policy.preferences,
        scales=np.asarray(scales, dtype=np.float64),
        rewards=found.rewards.reshape(*shape, rewards.shape[2]),
        kl=found.kl.reshape(shape),
        exact=not found.reason,
        seconds=(time.perf_counter() - began) / found.policies,
        reason=found.reason,
    )


def listed_scores(
    asked: Requests,
    rows: Sequence[Row],
    enumeration: Enumeration,
    log_reference: FloatArray,
    rewards: FloatArray,
    seed: int = 0,
    progress: Callable[[int], None] = lambda completions: None,
) -> PromptScores:
    """Score requests where all completions can be listed; equal policies are scored once.

    Args:
        asked: R requests.
        rows: P prompts.
        enumeration: How completions are listed.
        log_reference: All completions under the base model `[P, Y]`.
        rewards: `[P, Y, K]`.
        seed: Of the samples, where the policy can only be sampled.
        progress: Told after each policy, so that a stop is noticed.

    Raises:
        ShapeError: If the probabilities of all completions do not sum to 1.
    """
    prompts = [str(row["prompt"]) for row in rows]
    known: dict[bytes, tuple[FloatArray, FloatArray]] = {}
    reason, found = "", []
    for index in range(len(asked)):
        key = asked.identity(index)
        if key not in known:
            try:
                table = asked.policy.completion_table(
                    prompts, enumeration.token_ids, enumeration.length, asked.places[index].tolist()
                )
                made = outcome(_whole(table, type(asked.policy).__name__), log_reference, rewards)
                known[key] = made.rewards, made.kl
            except EnumerationError as error:
                reason = str(error)
                known[key] = _sampled(asked.policy, asked.places[index].tolist(), prompts, enumeration, rewards, seed)
            progress(0)
        found.append(known[key])
    return PromptScores(np.stack([each for each, _ in found]), np.stack([kl for _, kl in found]), len(known), reason)


def sampled_scores(records: Sequence[EvaluationRecord], prompts: int, samples: int) -> PromptScores:
    """Return the means of evaluations over the samples of each prompt, NaN where a prompt has no reward.

    Args:
        records: R evaluations on the same prompts.
        prompts: Number of prompts P.
        samples: Completions of each.
    """
    count = len(records[0].objectives)
    rewards, kl = [], []
    for record in records:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a prompt without any reward has the mean NaN
            rewards.append(np.nanmean(record.rewards[:, :count].reshape(prompts, samples, count), axis=1))
        kl.append((record.log_probs - record.reference_log_probs).reshape(prompts, samples).mean(axis=1))
    policies, why = len({record.identity for record in records}), f"estimated from {samples} samples of each prompt"
    return PromptScores(np.stack(rewards), np.stack(kl), policies, why)


def sampled_outcomes(
    policy: Policy | Requests,
    answered: Sequence[EvaluationRecord],
    rows: Sequence[Row],
    score: Score,
    objectives: Sequence[str],
    audit: Sequence[str],
    samples: int,
    seed: int,
    progress: Callable[[int], None] = lambda completions: None,
) -> OutcomeRecord:
    """Estimate what a policy's M preferences do at every scale, from samples of every prompt.

    Args:
        policy: M preferences, or requests of them.
        answered: Their evaluations at scale 1, with the same samples and seed.
        rows: P prompts.
        score: Scores completions on objectives and audit objectives.
        objectives: Names of the K objectives.
        audit: Names of the audit objectives.
        samples: Completions per prompt.
        seed: Of the noise.
        progress: Told of completions as they are made.
    """
    began = time.perf_counter()
    lower = len(SCALES) - 1
    made = evaluate(policy.scaled(SCALES[:-1]), rows, score, objectives, audit, samples, seed, progress=progress)
    records = [
        record for index, last in enumerate(answered) for record in (*made[index * lower : (index + 1) * lower], last)
    ]
    found = sampled_scores(records, len(rows), samples)
    shape = (len(policy), len(SCALES), len(rows))
    return OutcomeRecord(
        preferences=policy.preferences,
        scales=np.asarray(SCALES),
        rewards=found.rewards.reshape(*shape, len(objectives)),
        kl=found.kl.reshape(shape),
        exact=False,
        seconds=(time.perf_counter() - began) / len(made),
        reason=found.reason,
    )


def _sampled(
    policy: Policy,
    answering: Sequence[int],
    prompts: Sequence[str],
    enumeration: Enumeration,
    rewards: FloatArray,
    seed: int,
) -> tuple[FloatArray, FloatArray]:
    """Return mean rewards of samples `[P, K]`, and no KL `[P]`: the probability of what was sampled is not known."""
    completions = policy.generate(prompts, answering, samples=SAMPLES, seed=seed)
    places = {token: place for place, token in enumerate(enumeration.token_ids)}
    drawn: NDArray[np.int64] = np.zeros(len(completions.texts), dtype=np.int64)
    for row in range(len(drawn)):
        ids = completions.ids(row)
        if len(ids) != enumeration.length or not places.keys() >= {*ids}:
            raise ShapeError(
                f"sampled completions must be {enumeration.length} of the {len(places)} tokens that are listed, got "
                f"token ids {list(ids)}. Let the task's max_completion_tokens be the length, and no "
                "token end a text."
            )
        for token in ids:
            drawn[row] = drawn[row] * len(places) + places[token]
    owners = np.repeat(np.arange(len(prompts)), SAMPLES)
    means = rewards[owners, drawn].reshape(len(prompts), SAMPLES, -1).mean(axis=1)
    return np.asarray(means), np.full(len(prompts), np.nan)
