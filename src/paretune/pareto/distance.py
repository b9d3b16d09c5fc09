"""How far a set of scores stays behind a reference set. Lower is better; 0 is reached by dominating all of it."""

from __future__ import annotations

import moocore
from numpy.typing import ArrayLike

from paretune.pareto.front import check_some_scores


def igd_plus(scores: ArrayLike, reference_set: ArrayLike) -> float:
    """Return how much the nearest solution lacks to dominate a reference point, averaged over the reference set (IGD+).

    What a solution has beyond the reference point does not count against it, which plain IGD gets wrong: a dominating
    set can have the larger IGD.

    Args:
        scores: `[N, K]`, higher is better.
        reference_set: `[R, K]`. All methods must be measured against one set.

    Raises:
        ShapeError: If a set is empty, or the shapes disagree.
        NonFiniteError: If a score is NaN or infinite.

    Source:
        Ishibuchi et al. 2015, Modified distance calculation in generational distance and inverted generational
        distance; computed by moocore.

    Example:
        >>> igd_plus([[1, 1]], [[4, 5], [0, 1]])  # lacks (3, 4), and nothing
        2.5
    """
    points = check_some_scores(scores)
    references = check_some_scores(reference_set, "reference_set", points.shape[1])
    return float(moocore.igd_plus(points, ref=references, maximise=True))


def additive_epsilon(scores: ArrayLike, reference_set: ArrayLike) -> float:
    """Return the least number that, added to every score, makes the set weakly dominate the reference set.

    Args:
        scores: `[N, K]`, higher is better.
        reference_set: `[R, K]`. All methods must be measured against one set.

    Returns:
        The number; negative where the set still dominates after every score is lowered.

    Raises:
        ShapeError: If a set is empty, or the shapes disagree.
        NonFiniteError: If a score is NaN or infinite.

    Source:
        Zitzler et al. 2003, Performance assessment of multiobjective optimizers; computed by moocore.

    Example:
        >>> additive_epsilon([[1, 1]], [[1.5, 1], [0, 1.25]])
        0.5
    """
    points = check_some_scores(scores)
    references = check_some_scores(reference_set, "reference_set", points.shape[1])
    return float(moocore.epsilon_additive(points, ref=references, maximise=True))
