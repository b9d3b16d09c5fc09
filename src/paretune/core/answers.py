"""How a solution set answers a preference: the rule that separates the three families, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from paretune.core.checks import check_choice
from paretune.core.errors import ShapeError
from paretune.core.preferences import SUM_TOLERANCE, FloatArray, nearest

RuleKind = Literal["nearest", "selected", "combined"]
AnswerKind = Literal["exact", "nearest", "selected", "combined"]
RULES: tuple[RuleKind, ...] = ("nearest", "selected", "combined")


@dataclass(frozen=True)
class AnswerRule:
    """From a preference to expert weights.

    Attributes:
        kind: `nearest`: the expert trained for the nearest preference (single-policy); `selected`: the expert whose
            measured scores have the highest utility (multi-policy); `combined`: expert weights are linear in the
            preference (meta-policy).
        table: `nearest`: trained preferences `[E, K]`; `selected`: measured scores `[E, K]`; `combined`: expert
            weights at each corner `[K, E]`.
    """

    kind: RuleKind
    table: FloatArray

    def __post_init__(self) -> None:
        check_choice("rule", self.kind, RULES)
        if self.table.ndim != 2:
            raise ShapeError(f"table of an answer rule must have two dimensions, got {self.table.ndim}.")

    @property
    def experts(self) -> int:
        """Number of experts E."""
        return int(self.table.shape[1] if self.kind == "combined" else self.table.shape[0])

    def answer(self, preferences: FloatArray) -> tuple[FloatArray, list[AnswerKind]]:
        """Answer preferences `[M, K]` with expert weights `[M, E]` and, for each, how it was answered.

        Raises:
            ShapeError: If the preferences are of another number of objectives than the rule.
        """
        objectives = self.table.shape[0] if self.kind == "combined" else self.table.shape[1]
        if preferences.ndim != 2 or preferences.shape[1] != objectives:
            raise ShapeError(
                f"preferences must have one column per objective ({objectives}), got {preferences.shape[-1]}. "
                "Give every objective a weight; 0 is allowed."
            )
        if self.kind == "combined":
            return preferences @ self.table, ["combined"] * len(preferences)
        if self.kind == "selected":
            utility = preferences @ self.table.T  # [M, E]
            return _one_hot(utility.round(12).argmax(axis=1), self.experts), ["selected"] * len(preferences)
        chosen = nearest(self.table, preferences)
        exact = np.abs(self.table[chosen] - preferences).max(axis=1) <= SUM_TOLERANCE  # as exact as it was typed
        return _one_hot(chosen, self.experts), ["exact" if same else "nearest" for same in exact]


def _one_hot(index: NDArray[np.int64], size: int) -> FloatArray:
    return np.asarray(np.eye(size)[index])
