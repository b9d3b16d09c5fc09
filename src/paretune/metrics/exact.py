"""What metrics of exact scores share: a cell's `J` beside what can be reached, or why there is none."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paretune.core.preferences import SAME_PREFERENCE
from paretune.optimum.exact import Outcome, gains, prompt_gains
from paretune.records.outcomes import TruthRecord
from paretune.records.study import CellRecord, StudyRecords, TaskInfo

FloatArray = NDArray[np.float64]
LOST = "the record of what can be reached is missing or damaged: use paretune run on the study again"


class ExactScores(NamedTuple):
    """A finished cell's scores beside those of its task instance's best policies, for the task's preferences.

    Attributes:
        scores: `J_k = E r_k - beta KL` of the policy assigned to each preference, `[M, K]`.
        optimum: The same of each preference's best policy, `[M, K]`.
        truth: What can be reached on the instance.
        prompt_gains: Gained and possible J above the base model of each preference, `[2, M]`, where what users want
            depends on the prompt: there they are no weighed sums of scores. None elsewhere.
    """

    scores: FloatArray
    optimum: FloatArray
    truth: TruthRecord
    prompt_gains: FloatArray | None = None

    def gains(self, preferences: FloatArray, chosen: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
        """Return gained and possible J above the base model for the chosen ones of the task's preferences, `[N]` each.

        Args:
            preferences: Of the task, `[M, K]`.
            chosen: Which of them, `[M]`.
        """
        if self.prompt_gains is not None:
            gained, possible = self.prompt_gains[:, chosen]
            return gained, possible
        base = self.truth.reference_scores
        return gains(self.scores[chosen], base, self.optimum[chosen], preferences[chosen])


def exact_scores(study: StudyRecords, cell: CellRecord, task: TaskInfo) -> ExactScores | str:
    """Return the exact scores of a finished cell, or why it has none."""
    truth = study.truths.get((cell.task, cell.seed))
    if truth is None:
        return f"has no known optimum ({LOST if task.listed else 'completions cannot be listed'})"
    record = cell.outcomes
    if record is None:
        return "has no record of exact scores"
    if not record.exact or not np.isfinite(record.kl).all():
        return f"has no KL ({record.reason or 'its policy can only be sampled'})"
    own, best = _rows(record.preferences, task.preferences), _rows(truth.preferences, task.preferences)
    if own is None or best is None:
        return "has no exact scores for a preference"
    rewards, kl = record.at_scale(1.0)
    scores = np.asarray((rewards - truth.beta * kl[..., None]).mean(axis=1))[own]
    if not (np.isfinite(scores).all() and np.isfinite(truth.scores[best]).all()):
        return "has exact scores that are no finite numbers"
    wanted = truth.prompt_preferences
    if wanted is None:
        return ExactScores(scores, truth.scores[best], truth)
    pairs = (Outcome(rewards[own], kl[own]), Outcome(truth.rewards[best], truth.kl[best]))
    both = [prompt_gains(each, truth.reference_rewards, wanted[best], truth.beta) for each in pairs]
    return ExactScores(scores, truth.scores[best], truth, np.stack(both))


def without_front(task: TaskInfo) -> str:
    """Say why a task has no front; empty where it has one."""
    return "has no front: what users want depends on the prompt, and is no weighed sum of mean scores" * task.contextual


def _rows(known: FloatArray, wanted: FloatArray) -> NDArray[np.int64] | None:
    """Return where each wanted preference `[M, K]` stands among the known ones, or None where one is missing."""
    same = np.abs(wanted[:, None] - known[None]).max(axis=2) <= SAME_PREFERENCE
    return np.asarray(same.argmax(axis=1)) if same.any(axis=1).all() else None
