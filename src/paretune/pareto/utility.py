"""What a set of policies is worth to users whose preferences are known."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from paretune.core.preferences import check_preferences
from paretune.pareto.cross_fitting import EstimatePair, check_halves, check_prompt_scores, evaluation_sd, half_means
from paretune.pareto.front import check_some_scores


def expected_utility(scores: ArrayLike, preferences: ArrayLike) -> float:
    """Return the utility of the best score vector for each preference, averaged over preferences (EUM).

    The best vector in hindsight: measured scores carry noise, so this comes out too high. Call it naive.

    Args:
        scores: `[N, K]`, higher is better.
        preferences: Each counts the same, `[M, K]`.

    Raises:
        ShapeError: If there is no solution, or the shapes disagree.
        NonFiniteError: If a score is NaN or infinite.
        PreferenceError: If a preference has no K weights, none negative and one above 0.

    Source:
        Zintgraf et al. 2015, Quality assessment of MORL algorithms: a utility-based approach.

    Example:
        >>> expected_utility([[1, 0], [0, 1]], [[0.75, 0.25], [0.5, 0.5]])
        0.625
    """
    points = check_some_scores(scores)
    return float((points @ check_preferences(preferences, points.shape[1]).T).max(axis=0).mean())


def expected_utility_pair(
    prompt_scores: ArrayLike, preferences: ArrayLike, halves: ArrayLike | None = None
) -> EstimatePair:
    """Measure the expected utility naively and cross-fitted, with the evaluation noise beside the two.

    For each preference the best candidate is chosen on one half of the prompts and valued on the other, and the other
    way round. The cross-fitted figure is unbiased for the candidates so chosen.

    Args:
        prompt_scores: `[N, P, K]`, higher is better; prompts are common to all candidates.
        preferences: Each counts the same, `[M, K]`.
        halves: First halves of the prompts, `[R, P]`, over which the cross-fitted figure is averaged; None takes those
            that all methods share.

    Returns:
        Both figures. With one prompt there is no cross-fitted one.

    Raises:
        ShapeError: If there is no candidate, or the shapes disagree.
        NonFiniteError: If a score is NaN or infinite.
        PreferenceError: If a preference has no K weights, none negative and one above 0.
    """
    scores = check_prompt_scores(prompt_scores)
    candidates, prompts, objectives = scores.shape
    points = check_preferences(preferences, objectives)
    naive = expected_utility(scores.mean(axis=1), points)
    if prompts == 1:
        return EstimatePair(naive, None, None, candidates, 1, "one prompt: no halves and no evaluation noise")
    first, second = (means @ points.T for means in half_means(scores, check_halves(halves, prompts)))  # [R, N, M]
    chosen = np.take_along_axis(second, first.argmax(axis=1, keepdims=True), axis=1)
    valued = np.take_along_axis(first, second.argmax(axis=1, keepdims=True), axis=1)
    return EstimatePair(naive, float((chosen.mean() + valued.mean()) / 2), evaluation_sd(scores), candidates, prompts)


def maximum_utility_loss(scores: ArrayLike, reference_set: ArrayLike, preferences: ArrayLike) -> float:
    """Return the most that a user of one of the preferences loses by this set instead of the reference set (MUL).

    Args:
        scores: `[N, K]`, higher is better.
        reference_set: A true front, `[R, K]`; the best known one gives a bound only.
        preferences: `[M, K]`.

    Returns:
        The loss; negative where the set is better than the reference set for every preference.

    Raises:
        ShapeError: If a set is empty, or the shapes disagree.
        NonFiniteError: If a score is NaN or infinite.
        PreferenceError: If a preference has no K weights, none negative and one above 0.

    Source:
        Zintgraf et al. 2015, Quality assessment of MORL algorithms: a utility-based approach.

    Example:
        >>> maximum_utility_loss([[1, 0]], [[1, 0], [0, 0.5]], [[1, 0], [0, 1]])
        0.5
    """
    points = check_some_scores(scores)
    references = check_some_scores(reference_set, "reference_set", points.shape[1])
    directions = check_preferences(preferences, points.shape[1]).T
    return float(((references @ directions).max(axis=0) - (points @ directions).max(axis=0)).max())
