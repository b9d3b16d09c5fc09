"""An answer of solution sets that were adapted: some preferences have an expert of their own, others are as before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from paretune.core.answers import Answer, answer_from_plain
from paretune.core.errors import ShapeError
from paretune.core.preferences import SUM_TOLERANCE, FloatArray


@dataclass(frozen=True, eq=False)
class Adapted:
    """A preference that was adapted to is answered by experts trained for it, `exact`; any other as before.

    Attributes:
        before: What answered until then, see `core.answers.answer_to_plain`; its experts come first.
        adapted: Preferences with experts of their own, behind those experts, `[N, K]`.
        own: Weights of these experts for their preference, `[N, E']`; by default one expert each, of weight 1.
    """

    before: Mapping[str, object]
    adapted: FloatArray
    own: FloatArray = field(default_factory=lambda: np.zeros((0, 1)))

    def __post_init__(self) -> None:
        object.__setattr__(self, "adapted", np.asarray(self.adapted, dtype=np.float64))
        own = np.asarray(self.own, dtype=np.float64) if len(self.own) else np.ones((len(self.adapted), 1))
        object.__setattr__(self, "own", own)
        object.__setattr__(self, "_before", answer_from_plain(self.before))
        if self.adapted.ndim != 2 or self.adapted.shape[1] != self.former.objectives:
            raise ShapeError(
                f"adapted must be preferences of {self.former.objectives} objectives, got shape "
                f"{list(self.adapted.shape)}. Give every objective a weight; 0 is allowed."
            )
        if own.ndim != 2 or len(own) != len(self.adapted) or not np.isfinite(own).all():
            raise ShapeError(
                f"own must be finite weights [{len(self.adapted)}, E] of the experts of each adapted preference, got "
                f"shape {list(own.shape)}. Weigh all of them."
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
        """Number of experts E: those of before and those of each adapted preference."""
        return self.former.experts + self.own.size

    def weights(self, preferences: FloatArray) -> tuple[FloatArray, list[str]]:
        """Answer preferences `[M, K]` with expert weights `[M, E]`.

        Raises:
            ShapeError: If the preferences are of another number of objectives.
        """
        before, words = self.former.weights(preferences)
        weights = np.hstack([before, np.zeros((len(before), self.own.size))])
        for place, preference in enumerate(self.adapted):  # a later one of the same preference takes its place
            same = np.flatnonzero(np.abs(preferences - preference).max(axis=1) <= SUM_TOLERANCE)
            others = np.zeros_like(self.own)
            others[place] = self.own[place]
            weights[same] = np.concatenate([np.zeros(before.shape[1]), others.ravel()])
            words = ["exact" if row in same else word for row, word in enumerate(words)]
        return weights, words
