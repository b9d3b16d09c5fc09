"""What policies are worth to users on the test prompts: exact where completions can be listed, else from samples."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from paretune.benchmark.measuring import TableJob
from paretune.benchmark.study import Study
from paretune.core.preferences import FloatArray
from paretune.core.stages import StageResult
from paretune.core.task import Task
from paretune.records.evaluation import utility, weighed_sum

if TYPE_CHECKING:
    from paretune.models.policy import Policy
    from paretune.rl.requests import Requests

SPENT = ("completions", "tokens", "flops")  # counts of a ledger that tables keep, beside seconds


def worth(job: TableJob, policies: Policy | Requests, wanted: FloatArray, task: Task) -> list[dict[str, object]]:
    """Score policies for the users that they answer.

    Args:
        job: Gives prompts, samples, seed and link.
        policies: One for each user.
        wanted: What these users want, `[M, K]` of the task's objectives; the policies may know of fewer.
        task: The task instance whose objectives count.

    Returns:
        For each user `preference`, `scores [K]`, `kl`, `utility` and `J = utility - beta KL`, plain data. None is what
        cannot be known: a score without any reward, or the KL of a policy that can only be sampled.
    """
    by_prompt = task.prompt_preferences(job.rows, wanted) if task.contextual else None
    found = (_exact if task.enumeration is not None else _sampled)(job, policies, wanted, by_prompt, task)
    return [
        {
            "preference": preference.tolist(), "scores": [_known(score) for score in scores], "kl": _known(kl),
            "utility": _known(value), "J": _known(value - task.beta * kl),
        }
        for preference, (scores, kl, value) in zip(wanted, found, strict=True)
    ]  # fmt: skip


def base_policy(task: Task, wanted: FloatArray, prompts: int) -> Requests:
    """Return the base model as what answers all of M users on P prompts."""
    from paretune.models.loading import load_base
    from paretune.rl.evaluation import reference_policy
    from paretune.rl.requests import Requests

    reference = reference_policy(load_base(task.model), task)
    return Requests(reference, wanted, np.zeros((len(wanted), prompts), dtype=np.int64))


def spent(results: Iterable[StageResult], task: Task) -> dict[str, float]:
    """Add up what stages have cost, a shorter one that was made on the way of a longer one once."""
    longest: dict[str, StageResult] = {}
    for each in sorted(results, key=lambda each: each.stage.completions):
        longest[each.stage.trajectory_key(task)] = each
    counts = {name: math.fsum(each.ledger.counts[name] for each in longest.values()) for name in SPENT}
    return {**counts, "seconds": math.fsum(each.seconds for each in longest.values())}


def at_most(study: Study, task: Task, policies: int) -> int:
    """Return how many completions `worth` takes at most for so many policies: none where they are listed."""
    return 0 if task.enumeration is not None else len(study.test_rows(task)) * study.samples * policies


Scored = tuple[FloatArray, float, float]  # scores `[K]`, KL, utility


def _exact(
    job: TableJob, policies: Policy | Requests, wanted: FloatArray, by_prompt: FloatArray | None, task: Task
) -> list[Scored]:
    from paretune.objectives.scoring import Scorer
    from paretune.rl.outcomes import enumeration_of, outcomes, tables

    log_reference, rewards = tables(task, job.rows, Scorer(task.objectives))
    made = outcomes(
        policies, job.rows, enumeration_of(task), log_reference, rewards, (1.0,), job.seed, job.link.progress
    )
    expected, kl = made.at_scale(1.0)
    rows = np.repeat(wanted[:, None], len(job.rows), axis=1) if by_prompt is None else by_prompt
    values = weighed_sum(expected, rows).mean(axis=1)
    return [(expected[user].mean(axis=0), float(kl[user].mean()), float(values[user])) for user in range(len(wanted))]


def _sampled(
    job: TableJob, policies: Policy | Requests, wanted: FloatArray, by_prompt: FloatArray | None, task: Task
) -> list[Scored]:
    from paretune.objectives.scoring import Scorer
    from paretune.rl.evaluation import evaluate

    records = evaluate(
        policies, job.rows, Scorer(task.objectives), task.objective_names, samples=job.samples, seed=job.seed,
        progress=job.link.progress,
    )  # fmt: skip
    if by_prompt is None:
        values = [float(utility(each.scores, row)) for each, row in zip(records, wanted, strict=True)]
    else:
        pairs = zip(records, by_prompt, strict=True)
        values = [each.utility_by(rows) for each, rows in pairs]
    return [(each.scores, each.kl, value) for each, value in zip(records, values, strict=True)]


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
