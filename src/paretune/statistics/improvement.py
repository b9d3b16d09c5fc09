"""How likely a run of one method beats a run of another."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from paretune.core.errors import NonFiniteError, ShapeError
from paretune.statistics.intervals import Interval, check_confidence

ROUNDING = 1e-12


def probability_of_improvement(first: ArrayLike, second: ArrayLike, confidence: float = 0.95) -> Interval:
    """Return the chance that a run of the first method scores higher than one of the second, a tie counting half.

    It says how often, not by how much, and does not pair seeds: compare means with `paired_difference`.

    Args:
        first: Scores of the first method, higher is better: one per run `[n]`, or a row for each task and a column for
            each seed `[T, n]`.
        second: Scores of the second method on the same tasks, `[m]` or `[T, m]`.
        confidence: Coverage, between 0 and 1.

    Returns:
        The mean over tasks of the Mann-Whitney U / (n m), with a score interval, which is as honest at 0 and 1 as
        between; `count` is the number of runs of both. Very few runs give a wide interval, never none. Runs of one
        seed on several tasks share its model, prompts and draws: there the interval rests on how seeds differ. In
        simulations with 3 to 20 seeds it covered 94 % or more, whether tasks went together or not; where seeds move
        both methods alike it is too wide, since it does not pair them, and where a few seeds of one method collapse on
        all tasks it may be too narrow, as with one task.

    Raises:
        ShapeError: If the tasks differ, or a method has no run.
        NonFiniteError: If a score is NaN or infinite.
        ConfigError: If `confidence` is not between 0 and 1.

    Source:
        Mann and Whitney 1947; Agarwal et al. 2021 for the mean over tasks. Interval: Newcombe 2006, Confidence
        intervals for an effect size measure based on the Mann-Whitney statistic, part 2, method 5.

    Departures:
        Agarwal et al. draw the runs of each task anew; at a few runs that interval is too narrow, and has no width
        where all runs of one method win; it also takes the tasks of one seed as independent. In place of Newcombe's
        normal quantile we take Student's t with n + m - 2 degrees of freedom, since the normal quantile is too near for
        few runs. Over T tasks we divide the variance by the number of independent tasks that would vary as the seeds
        do, at most T and below one where tasks make seeds differ more than one task does (DeLong et al. 1988, with
        seeds as the units), and by one where one method wins every pair or has a single seed, since nothing then shows
        how tasks go together; no interval over tasks ends nearer to 0 or 1 than the one there.

    Example:
        >>> probability_of_improvement([0.6, 0.7, 0.8], [0.5, 0.6, 0.7]).mean  # 6 wins and 2 ties of 9
        0.7777777777777778
    """
    left, right = _by_task(first, "first"), _by_task(second, "second")
    check_confidence(confidence)
    if len(left) != len(right):
        raise ShapeError(
            f"first and second must have a row for each of the same tasks, got {len(left)} and {len(right)}. "
            "Leave out tasks that only one method has runs of."
        )
    wins = (np.sign(left[:, :, None] - right[:, None, :]) + 1) / 2  # [T, n, m]
    found, (tasks, n, m) = float(wins.mean()), wins.shape
    reach = float(special.stdtrit(max(1, n + m - 2), (1 + confidence) / 2))
    low, high = _ends(found, reach, _independent_tasks(wins), n, m)
    method = f"Mann-Whitney score interval over {tasks} task{'s' if tasks > 1 else ''}, {n} against {m} runs each"
    if tasks > 1:  # winning every pair shows nothing of how tasks go together: there they count as one
        edge = _ends(1.0, reach, 1.0, n, m)[0]
        low, high, method = min(low, edge), max(high, 1 - edge), f"{method}, tasks of one seed together"
    return Interval(found, low, high, tasks * (n + m), method=method)


def _ends(found: float, reach: float, tasks: float, n: int, m: int) -> tuple[float, float]:
    def excess(theta: float, sign: int) -> float:
        return sign * (found - theta) - reach * math.sqrt(_variance(theta, n, m) / tasks)

    # at 0 and 1 the variance is 0, so that the value itself is a root, but not the one that bounds the interval
    low = 0.0 if found == 0 else float(optimize.brentq(excess, 0.0, min(found, 1 - ROUNDING), args=(1,)))
    high = 1.0 if found == 1 else float(optimize.brentq(excess, max(found, ROUNDING), 1.0, args=(-1,)))
    return low, high


def _independent_tasks(wins: NDArray[np.float64]) -> float:
    """Return how many independent tasks would vary as the seeds do in `[T, n, m]`; one where a method has one seed."""
    tasks, n, m = wins.shape
    if tasks == 1 or min(n, m) == 1:
        return 1.0
    pairs = wins.mean(axis=0)  # [n, m], one for a seed of each method
    alone = _variance(float(pairs.mean()), n, m)
    seen = pairs.mean(axis=1).var(ddof=1) / n + pairs.mean(axis=0).var(ddof=1) / m
    return float(tasks) if seen * tasks <= alone else float(alone / seen)


def _variance(theta: float, n: int, m: int) -> float:
    """Return the variance of U / (n m) after Hanley and McNeil 1982, with both sample sizes replaced by their mean."""
    others = (n + m) / 2 - 1
    return theta * (1 - theta) * (1 + others * ((1 - theta) / (2 - theta) + theta / (1 + theta))) / (n * m)


def _by_task(scores: ArrayLike, name: str) -> NDArray[np.float64]:
    sample = np.asarray(scores, dtype=np.float64)
    rows = sample[None] if sample.ndim == 1 else sample
    if rows.ndim != 2 or rows.size == 0:
        raise ShapeError(
            f"{name} must be at least one run [S], or a row of runs a task [T, S], got shape {list(sample.shape)}. "
            "Give such an array, and leave out methods without a run."
        )
    if not np.isfinite(rows).all():
        raise NonFiniteError(f"{name} must be finite, got a NaN or infinity. Leave out runs without a score.")
    return rows
