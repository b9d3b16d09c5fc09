"""What candidates are selected by: scores as the task judges policies, so that every selection asks for the same."""

from __future__ import annotations

import numpy as np

from paretune.core.errors import NonFiniteError, ShapeError
from paretune.core.preferences import FloatArray
from paretune.core.task import Task


def judged_scores(task: Task, scores: FloatArray, kl: FloatArray) -> FloatArray:
    """Return scores as the task judges them: `scores - beta KL` where it is judged on J, else the scores.

    Preferences sum to one, so a preference times these scores is `J_w = w . E r - beta KL`, or the utility.

    Args:
        task: Says what policies are judged on, and beta.
        scores: Mean rewards of E candidates, or rewards of E completions, `[E, K]`; NaN stays NaN.
        kl: Sequence-level KL of each in nats, `[E]`.

    Raises:
        NonFiniteError: If J is asked for, and a KL is not known of what has scores.
        ShapeError: If there is not one KL for each candidate.

    Example:
        >>> from types import SimpleNamespace
        >>> task = SimpleNamespace(judged_on="J", beta=0.1)
        >>> judged_scores(task, np.asarray([[0.5, 0.75]]), np.asarray([2.5])).tolist()
        [[0.25, 0.5]]
    """
    if scores.ndim != 2 or kl.shape != scores.shape[:1]:
        raise ShapeError(
            f"kl must have one entry for each row of scores {list(scores.shape)}, got shape {list(kl.shape)}. Measure "
            "both of the same candidates."
        )
    if task.judged_on != "J":
        return scores
    if (~np.isfinite(kl) & np.isfinite(scores).any(axis=1)).any():
        raise NonFiniteError(
            "kl must be finite where the task is judged on J, got NaN or infinity. Where training diverged, so that "
            "log-probabilities are NaN, try a lower learning_rate. A policy of several particles has no KL of its "
            "completions: measure one of a single particle, or write judged_on: utility."
        )
    return np.asarray(scores - task.beta * kl[:, None])
