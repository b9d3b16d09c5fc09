"""How far the best policy for a preference may be: estimated from the base model's samples, or bounded from below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paretune.core.errors import ConfigError
from paretune.core.protocols import MetricValue
from paretune.metrics.exact import LOST
from paretune.optimum.estimated import best_trained, estimated_front
from paretune.records.evaluation import EvaluationRecord
from paretune.records.study import StudyRecords
from paretune.report.comparison import Comparison
from paretune.report.estimates import column_mean
from paretune.report.tables import Table
from paretune.report.wording import MISSING, count, interval, number

FloatArray = NDArray[np.float64]
SAME_BASE = 0.1  # nats a token: bf16 scores of one text in two batches differ by less, two base models by more
CONTEXT = "what users want depends on the prompt, which no estimate knows"
INSTANCES = "every seed names an instance of the task, with rewards and beta of its own"


@dataclass(frozen=True)
class OptimumEstimate:
    """What is known of the best J of a comparison's preferences, `J = w . E r - beta KL`.

    Attributes:
        samples: Completions of the base model per prompt.
        best: Estimated J* by preference, without a value where it cannot be told, M of them.
        trained: Highest J of the trained policies by preference, and whose it is; None without any.
        prompts: Prompts the base model was evaluated on.
        left_out: How many of them are left out, for a missing reward or for fewer completions than others have.
    """

    samples: int
    best: tuple[MetricValue, ...]
    trained: tuple[tuple[float, str] | None, ...]
    prompts: int = 0
    left_out: int = 0


def optimum_estimate(part: Comparison, study: StudyRecords) -> OptimumEstimate | None:
    """Estimate what could be reached on a task whose optimum is not known; None where it is.

    Nothing is estimated where completions can be listed, or seeds name instances of a family: each has its own base
    model, rewards and beta. Else the completions of all seeds are taken together, unless records show that they come
    from several base models or answer other prompts. Prompts on which a reward is missing, or that have fewer
    completions than others, are left out and counted.

    Args:
        part: The comparison.
        study: Its study.
    """
    preferences = part.task.preferences
    if any(task == part.task.name for task, _ in study.truths):
        return None
    if part.task.listed or part.task.family_settings or part.task.contextual:  # no J without the instances' own beta
        value = MetricValue(None, reason=LOST if part.task.listed else CONTEXT if part.task.contextual else INSTANCES)
        return OptimumEstimate(0, (value,) * len(preferences), (None,) * len(preferences))
    unlike = _unlike(part)
    rewards, prompts = (None, 0) if unlike else _base_rewards(part)
    trained = tuple(_best_trained(part, column) for column in range(len(preferences)))
    samples = 0 if rewards is None else rewards.shape[1]
    lost = prompts - (0 if rewards is None else len(rewards))
    if rewards is None or samples < 2:
        reason = unlike or (
            "the base model was not evaluated on common prompts with all rewards"
            if rewards is None
            else "one completion of the base model per prompt; raise evaluation samples"
        )
        return OptimumEstimate(samples, (MetricValue(None, reason=reason),) * len(preferences), trained, prompts, lost)
    try:
        front = estimated_front(rewards, preferences, part.task.beta)
    except ConfigError as error:  # beta 0: the best policy leaves the base model altogether
        return OptimumEstimate(
            samples, (MetricValue(None, reason=str(error)),) * len(preferences), trained, prompts, lost
        )
    best = tuple(
        MetricValue(None, reason=reason) if reason else MetricValue(float(value), float(low), float(high))
        for value, low, high, reason in zip(
            front.best.values, front.best.low, front.best.high, front.reasons, strict=True
        )
    )
    return OptimumEstimate(samples, best, trained, prompts, lost)


def optimum_sentence(found: OptimumEstimate, labels: Sequence[str]) -> str:
    """Say in one line what is known; the interval of a mean averages the preferences' own ends, which is too wide."""
    known = [index for index, value in enumerate(found.best) if value.value is not None]
    open_ = [index for index, value in enumerate(found.best) if value.value is None]
    parts = []
    if known:
        values = np.array(
            [[found.best[i].value, found.best[i].low, found.best[i].high] for i in known], dtype=np.float64
        )
        mean, low, high = values.mean(axis=0).tolist()
        parts.append(
            f"From {found.samples} completions of the base model per prompt, the best J there is, averaged over "
            f"{_of(known, labels)}, is estimated at {interval(MetricValue(mean, low, high))}"
            f"{_trained(found, known, '; the best trained policies reach')}."
        )
    if open_:
        parts.append(
            f"For {_of(open_, labels)} it cannot be told: {found.best[open_[0]].reason.rstrip('.')}"
            f"{_trained(found, open_, '. A lower bound, J of the best trained policy:')}."
        )
    if found.left_out:
        parts.append(
            f"Left out: {found.left_out} of {count(found.prompts, 'prompt')}, with a missing reward of the base model "
            "or fewer completions than others."
        )
    return " ".join(parts)


def optimum_table(found: OptimumEstimate, labels: Sequence[str], shown: Sequence[int]) -> Table:
    """Return estimate and lower bound of some preferences, by their numbers."""
    lines = []
    for column in shown:
        value, trained = found.best[column], found.trained[column]
        bound = (MISSING, "") if trained is None else (number(trained[0]), trained[1])
        lines.append((labels[column], interval(value), *bound, value.reason))
    title = (
        "Best J there is, estimated [95 % interval over completions, these prompts], and the best of the trained "
        "policies, a lower bound that noise raises"
    )
    if len(shown) < len(labels):
        title += f"; {len(shown):,} of {len(labels):,} preferences, corners first"
    columns = ("preference", "estimated optimum", "best trained", "by", "why there is no estimate")
    return Table("optimum", title, columns, tuple(lines))


def _unlike(part: Comparison) -> str:
    """Say why completions of different seeds must not be taken together; empty where they may."""
    prompts: dict[str, tuple[int, str]] = {}
    scored: dict[tuple[str, tuple[int, ...]], tuple[int, float]] = {}
    for seed, record in part.references.items():
        for row, (name, text) in enumerate(zip(record.prompt_ids, record.prompts, strict=True)):
            first, known = prompts.setdefault(name, (seed, text))
            if known != text:
                return f"prompt '{name}' has another text with seed {seed} than with seed {first}"
            log_prob = _log_prob_a_token(record, row)
            first, same = scored.setdefault((name, record.token_ids[row]), (seed, log_prob))
            if abs(log_prob - same) > SAME_BASE:
                return (
                    f"the base model of seed {seed} is another than that of seed {first}: it gives one completion of "
                    f"prompt '{name}' {log_prob:.2f} nats a token, not {same:.2f}"
                )
    return ""


def _log_prob_a_token(record: EvaluationRecord, row: int) -> float:
    return float(record.reference_log_probs[row]) / max(len(record.token_ids[row]), 1)


def _base_rewards(part: Comparison) -> tuple[FloatArray | None, int]:
    """Return the base model's rewards on whole prompts, the completions of all seeds together, `[P, S, K]`.

    Beside them stands the number of all prompts, whole or not.
    """
    records = list(part.references.values())
    if not records:
        return None, 0
    columns = len(records[0].objectives)
    by_prompt: dict[str, list[FloatArray]] = {}
    for record in records:
        for prompt, rewards in zip(record.prompt_ids, record.rewards[:, :columns], strict=True):
            by_prompt.setdefault(prompt, []).append(rewards)
    most = max(map(len, by_prompt.values()))
    whole = [np.array(rows) for rows in by_prompt.values() if len(rows) == most and np.isfinite(rows).all()]
    return (np.stack(whole) if whole else None), len(by_prompt)


def _best_trained(part: Comparison, column: int) -> tuple[float, str] | None:
    values = []
    for method in part.ranked:
        scores = method.utilities[:, column] - part.task.beta * method.kl[:, column]
        value = column_mean(scores, part.seeds).value
        values.append(float("nan") if value is None else value)
    bound = best_trained(values) if values else None
    if bound is None or bound.value is None or bound.index is None:
        return None
    return bound.value, part.ranked[bound.index].name


def _trained(found: OptimumEstimate, columns: Sequence[int], words: str) -> str:
    values = [each[0] for each in (found.trained[column] for column in columns) if each is not None]
    return f"{words} {number(float(np.mean(values)))}" if len(values) == len(columns) else ""


def _of(columns: Sequence[int], labels: Sequence[str]) -> str:
    if len(columns) == len(labels):
        return f"all {count(len(labels), 'preference')}"
    return f"{len(columns)} of {count(len(labels), 'preference')}"
