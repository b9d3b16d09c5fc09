"""What the experts of a solution set are called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from paretune.core.preferences import corners, preference_label

if TYPE_CHECKING:
    from paretune.models.solutions import SolutionSet


def expert_names(solutions: SolutionSet, objectives: Sequence[str]) -> list[str]:
    """Name the experts of a solution set, each differently.

    By the preference that it was trained for, where the answer says that; by the objective at whose corner it answers
    alone, and at no other; else by its number, from 1 on.
    """
    answer: Any = solutions.answer
    numbers = [f"expert {number + 1}" for number in range(answer.experts)]
    trained = getattr(answer, "trained", None)
    if isinstance(trained, np.ndarray) and trained.shape == (answer.experts, len(objectives)):
        found = [preference_label(row, objectives) for row in trained]
    else:
        found = list(numbers)
        weighed = solutions.answer.weights(corners(len(objectives)))[0] != 0  # [K, E]
        for k, name in enumerate(objectives):
            (own,) = np.nonzero(weighed[k])
            if len(own) == 1 and weighed[:, own[0]].sum() == 1:
                found[own[0]] = name
    return [name if found.count(name) == 1 else number for name, number in zip(found, numbers, strict=True)]
