"""What methods share that choose weights from the inner products of the objectives' gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from paretune.core.checks import check_choice
from paretune.core.errors import WeightingError
from paretune.core.preferences import FloatArray
from paretune.methods.per_preference import PerPreferenceSettings
from paretune.rl.gradient_step import GradientStep
from paretune.rl.weighting import Fixed, Seen

PREFERENCE_POWERS = {"ignored": None, "scaled": 1, "shared": -1}


@dataclass(frozen=True)
class GradientSettings(PerPreferenceSettings):
    """Settings of a method that chooses weights from gradients, beside those of one policy per preference."""

    metric: str = "optimiser"  # of the inner products; plain: of raw gradients, as published, before AdamW
    optimiser: str = "adamw"  # or sgd, without momentum: it wants a learning_rate of its own, some 100 times as large

    def __post_init__(self) -> None:
        super().__post_init__()
        GradientStep(self.metric, self.optimiser)


@dataclass(frozen=True)
class RescaledSettings(GradientSettings):
    """Settings of a method that rescales gradients before it compares them."""

    normalise: int = 1  # each gradient is divided by its norm to this power first: 0 (as published), 1 (GAPO), 2
    preference: str = "shared"  # shared: gains go with preferences; scaled: losses times preferences; ignored

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("normalise", str(self.normalise), ("0", "1", "2"))
        check_choice("preference", self.preference, PREFERENCE_POWERS)


class GradientWeights(Fixed, ABC):
    """A weighting that is a function of the Gram matrix: it measures nothing and has no state."""

    needs: ClassVar[frozenset[str]] = frozenset({"gram"})

    def __init__(self, preference: FloatArray, settings: Mapping[str, Any], ranges: FloatArray) -> None:
        super().__init__(preference, settings, ranges)
        self.settings = settings
        self.step_rule = GradientStep(settings["metric"], settings["optimiser"])

    @abstractmethod
    def of_gram(self, gram: FloatArray, generator: np.random.Generator) -> FloatArray:
        """Return the weights `[K]` of raw gradients with inner products `[K, K]`; all 0 where none counts."""

    def weigh(self, seen: Seen) -> FloatArray:
        """Return the weights; the preference where no objective that counts has a gradient.

        Raises:
            WeightingError: If the Gram matrix is not seen.
        """
        if seen.gram is None:
            name = type(self).__name__
            raise WeightingError(f"gram must be seen by {name}, got None. Leave it in what the class `needs`.")
        weights = self.of_gram(seen.gram, seen.generator)
        return weights if weights.any() else self.preference


def rescaling(preference: FloatArray, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return how `RescaledSettings` rescale gradients, as arguments of a strategy of `gradients`."""
    power = PREFERENCE_POWERS[settings["preference"]]
    given = {} if power is None else {"preference": preference, "preference_power": power}
    return {"norm_power": settings["normalise"], **given}
