"""An answer of solution sets that were adapted: some preferences have an expert of their own, others are as before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from paretune.core.answers import Answer, answer_from_plain
from paretune.core.errors import ShapeError
from paretune.core.preferences import SUM_TOLERANCE, FloatArray


@dataclass(frozen=True, eq=False)
class Adapted:
    """A preference that was adapted to is answered by an expert trained for it, `exact`; any other as before.

    Attributes:
        before: What answered until then, see `core.answers.answer_to_plain`; its experts come first.
        adapted: Preferences with an expert of their own, behind those experts, `[N, K]`.
    """

    before: Mapping[str, object]
    adapted: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "adapted", np.asarray(self.adapted, dtype=np.float64))
        object.__setattr__(self, "_before", answer_from_plain(self.before))
        if self.adapted.ndim != 2 or self.adapted.shape[1] != self.former.objectives:
            raise ShapeError(
                f"adapted must be preferences of {self.former.objectives} objectives, got shape "
                f"{list(self.adapted.shape)}. Give every objective a weight; 0 is allowed."
            )

    @property
    def former(self) -> Answer:
        """What answers all other preferences."""
        answer: Answer = vars(self)["_before"]
        return answer

    @property
    def objectives(self) -> int:
        """Number of objectives K."""
        return self.former.objectives

    @property
    def experts(self) -> int:
        """Number of experts E: those of before and one for each adapted preference."""
        return self.former.experts + len(self.adapted)

    def weights(self, preferences: FloatArray) -> tuple[FloatArray, list[str]]:
        """Answer preferences `[M, K]` with expert weights `[M, E]`.

        Raises:
            ShapeError: If the preferences are of another number of objectives.
        """
        before, words = self.former.weights(preferences)
        weights = np.hstack([before, np.zeros((len(before), len(self.adapted)))])
        for place, preference in enumerate(self.adapted):  # a later one of the same preference takes its place
            same = np.flatnonzero(np.abs(preferences - preference).max(axis=1) <= SUM_TOLERANCE)
            weights[same] = np.eye(self.experts)[before.shape[1] + place]
            words = ["exact" if row in same else word for row, word in enumerate(words)]
        return weights, words
