"""An individual of an evolved population: a policy, where it comes from, and what it measured so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray
from paretune.methods.folds import fold_means, fold_sums

if TYPE_CHECKING:
    from torch import Tensor

    from paretune.rl.checkpoints import State

TALLIES = ("counts", "sums", "squares", "folds")
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
        folds: Counts and sums of worth and KL on each fold of the prompts, `[2, F, K + 1]`.
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
    folds: FloatArray = field(default_factory=lambda: np.zeros(0))

    def child(
        self, number: int, generation: int, operation: str, parents: Sequence[int], objective_weights: FloatArray
    ) -> Individual:
        """Return one that starts as this one is, for weights of its own, and has measured nothing yet."""
        none = np.zeros(0)
        return replace(
            self, number=number, generation=generation, operation=operation, parents=tuple(parents),
            objective_weights=objective_weights, counts=none, sums=none, squares=none, folds=none,
        )  # fmt: skip

    def measured(self, worth: FloatArray, kl: FloatArray, folds: NDArray[np.int64]) -> Individual:
        """Return it with further completions in its means; what is missing (NaN) is left out.

        Args:
            worth: Of each completion and objective, `[N, K]`.
            kl: Of each, `[N]`.
            folds: The fold of the prompt of each, `[N]`.
        """
        present = ~np.isnan(worth)
        known = np.where(present, worth, 0.0)
        before = self.counts, self.sums, self.squares
        counts, sums, squares = (each if len(each) else np.zeros(worth.shape[1]) for each in before)
        by_fold = np.stack(fold_sums(np.column_stack([worth, kl]), folds))
        return replace(
            self,
            counts=counts + present.sum(axis=0),
            sums=sums + known.sum(axis=0),
            squares=squares + (known**2).sum(axis=0),
            folds=self.folds + by_fold if len(self.folds) else by_fold,
        )

    def since(self, before: Individual) -> Individual:
        """Return it with the completions alone that it measured since it was `before`."""
        if not len(before.counts):
            return self
        left = {name: getattr(self, name) - getattr(before, name) for name in TALLIES}
        return replace(self, **left)

    @property
    def fold_means(self) -> FloatArray:
        """Mean worth and KL on each fold of the prompts, `[F, K + 1]`; NaN where nothing was measured."""
        return fold_means(self.folds[0], self.folds[1])

    @property
    def kl(self) -> float:
        """Mean KL of its completions in nats; NaN where none was measured."""
        if not len(self.folds):
            return float("nan")
        return float(self.folds[1, :, -1].sum() / max(self.folds[0, :, -1].sum(), 1.0))

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
        counts = [int(count) for count in self.counts]
        return {
            **self.origin(),
            "scores": plain(self.scores),
            "kl": self.kl if len(self.folds) else None,
            "counts": counts,
        }

    def with_folds(self) -> dict[str, object]:
        """Return its record with what it measured on each fold and how often, both `[F, K + 1]`."""
        counts = self.folds[0].astype(np.int64).tolist()
        return {**self.as_record(), "folds": [plain(row) for row in self.fold_means], "fold_counts": counts}


def plain(values: FloatArray) -> list[float | None]:
    """Return numbers for JSON, None for NaN."""
    return [None if np.isnan(value) else float(value) for value in values]


def to_state(individuals: Sequence[Individual]) -> State:
    """Return individuals as tensors and plain data."""
    tensors, listed = {}, []
    for place, each in enumerate(individuals):
        tensors[f"{place}/parameters"] = each.trained
        tensors.update({f"{place}/learner/{name}": tensor for name, tensor in each.learner.items()})
        tallies = {name: getattr(each, name).tolist() for name in TALLIES}
        listed.append({**each.origin(), **tallies, "failing": list(each.failing)})
    return tensors, {"individuals": listed}


def from_state(tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> list[Individual]:
    """Return the individuals that `to_state` was given."""
    found = []
    for place, saved in enumerate(plain["individuals"]):
        start = f"{place}/learner/"
        arrays = {name: np.asarray(saved[name], np.float64) for name in ("objective_weights", *TALLIES)}
        found.append(
            Individual(
                saved["number"], saved["generation"], saved["operation"], tuple(saved["parents"]),
                parameters=tensors[f"{place}/parameters"], failing=tuple(saved["failing"]), **arrays,
                learner={name.removeprefix(start): each for name, each in tensors.items() if name.startswith(start)},
            )
        )  # fmt: skip
    return found
