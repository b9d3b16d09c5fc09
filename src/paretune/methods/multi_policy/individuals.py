"""An individual of an evolved population: a policy, where it comes from, and what it measured so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray

if TYPE_CHECKING:
    from torch import Tensor

    from paretune.rl.checkpoints import State

SPREAD = 0.25  # of a range: how far off one more completion is assumed, so that few equal ones prove nothing


@dataclass(frozen=True, eq=False)
class Individual:
    """One policy; nothing of it is ever changed in place.

    Attributes:
        number: In the order of birth.
        generation: It was born in.
        operation: `start`, `training` or `crossover`.
        parents: Their numbers.
        objective_weights: What it was trained for, `[K]`.
        parameters: Of its expert, `[P]`, as measured and handed over; None before it is trained.
        learner: What a learner goes on from; empty where only the parameters are known.
        failing: For each objective, updates in a row without a reward.
        counts: Completions measured on each objective, `[K]`.
        sums: Of what they were worth, by what the task is judged on.
        squares: Sum of the squares of that.
    """

    number: int
    generation: int
    operation: str
    parents: tuple[int, ...]
    objective_weights: FloatArray
    parameters: Tensor | None = None
    learner: Mapping[str, Tensor] = field(default_factory=dict)
    failing: tuple[int, ...] = ()
    counts: FloatArray = field(default_factory=lambda: np.zeros(0))
    sums: FloatArray = field(default_factory=lambda: np.zeros(0))
    squares: FloatArray = field(default_factory=lambda: np.zeros(0))

    def measured(self, worth: FloatArray) -> Individual:
        """Return it with the worth of further completions `[N, K]` in its means; what is missing (NaN) is left out."""
        present = ~np.isnan(worth)
        known = np.where(present, worth, 0.0)
        before = self.counts, self.sums, self.squares
        counts, sums, squares = (each if len(each) else np.zeros(worth.shape[1]) for each in before)
        return replace(
            self,
            counts=counts + present.sum(axis=0),
            sums=sums + known.sum(axis=0),
            squares=squares + (known**2).sum(axis=0),
        )

    @property
    def trained(self) -> Tensor:
        """Its parameters.

        Raises:
            ConfigError: If it was not trained yet.
        """
        if self.parameters is None:
            raise ConfigError(f"individual {self.number} must be trained to have parameters, got none. Train it first.")
        return self.parameters

    @property
    def scores(self) -> FloatArray:
        """Mean worth of its completions, `[K]`; NaN where none was ever measured."""
        return np.where(self.counts > 0, self.sums / np.maximum(self.counts, 1), np.nan)

    def errors(self, widths: FloatArray) -> FloatArray:
        """Return standard errors of the scores, `[K]`, for reward ranges of these widths; NaN without a completion."""
        counts = np.maximum(self.counts, 1)
        squared = np.maximum(self.squares - self.sums**2 / counts, 0.0) + (SPREAD * widths) ** 2
        return np.where(self.counts > 0, np.sqrt(squared) / counts, np.nan)

    def origin(self) -> dict[str, object]:
        """Return where it comes from, as plain data."""
        return {
            "number": self.number,
            "generation": self.generation,
            "operation": self.operation,
            "parents": list(self.parents),
            "objective_weights": self.objective_weights.tolist(),
        }

    def as_record(self) -> dict[str, object]:
        """Return where it comes from and what it measured, as plain data."""
        scores = [None if np.isnan(score) else float(score) for score in self.scores]
        return {**self.origin(), "scores": scores, "counts": [int(count) for count in self.counts]}


def to_state(individuals: Sequence[Individual]) -> State:
    """Return individuals as tensors and plain data."""
    tensors, plain = {}, []
    for place, each in enumerate(individuals):
        tensors[f"{place}/parameters"] = each.trained
        tensors.update({f"{place}/learner/{name}": tensor for name, tensor in each.learner.items()})
        sums = {"counts": each.counts.tolist(), "sums": each.sums.tolist(), "squares": each.squares.tolist()}
        plain.append({**each.origin(), **sums, "failing": list(each.failing)})
    return tensors, {"individuals": plain}


def from_state(tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> list[Individual]:
    """Return the individuals that `to_state` was given."""
    found = []
    for place, saved in enumerate(plain["individuals"]):
        start = f"{place}/learner/"
        arrays = {
            name: np.asarray(saved[name], np.float64) for name in ("objective_weights", "counts", "sums", "squares")
        }
        found.append(
            Individual(
                saved["number"], saved["generation"], saved["operation"], tuple(saved["parents"]),
                parameters=tensors[f"{place}/parameters"], failing=tuple(saved["failing"]), **arrays,
                learner={name.removeprefix(start): each for name, each in tensors.items() if name.startswith(start)},
            )
        )  # fmt: skip
    return found
