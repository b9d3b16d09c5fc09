"""Multiple-gradient descent: each policy moves where no objective of its preference gets worse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from paretune.core.checks import check_choice
from paretune.core.errors import WeightingError
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.gradients.mgda import mgda
from paretune.methods.experts import expert_stage
from paretune.methods.per_preference import PerPreferenceSettings, best_trained, planned_policies
from paretune.rl.weighting import Seen

PREFERENCE_POWERS = {"ignored": None, "scaled": 1, "shared": -1}


@dataclass(frozen=True)
class MGDASettings(PerPreferenceSettings):
    """Settings of `MGDA`, beside those of one policy per preference."""

    normalise: int = 1  # each gradient is divided by its norm to this power first: 0 (MGDA), 1 (GAPO), 2
    preference: str = "shared"  # shared: gains go with preferences; scaled: losses times preferences; ignored: MGDA

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("normalise", str(self.normalise), ("0", "1", "2"))
        check_choice("preference", self.preference, PREFERENCE_POWERS)


class MGDAWeights:
    """Weights of the shortest vector in the hull of the objectives' gradients, in the metric of the step."""

    needs: ClassVar[frozenset[str]] = frozenset({"gram"})

    def __init__(self, preference: FloatArray, settings: Mapping[str, object], ranges: FloatArray) -> None:
        self.preference = preference
        self.norm_power = int(str(settings["normalise"]))
        self.preference_power = PREFERENCE_POWERS[str(settings["preference"])]

    def measured(self, update: int) -> int:
        """Measure nothing."""
        return 0

    def weigh(self, seen: Seen) -> FloatArray:
        """Return the weights, scaled to sum 1, since each objective's gradient has the whole of the KL in it.

        Raises:
            WeightingError: If the Gram matrix is not seen.
        """
        if seen.gram is None:
            raise WeightingError("gram must be seen by MGDAWeights, got None. Leave it in what the class `needs`.")
        if self.preference_power is None:
            weights = mgda(seen.gram, self.norm_power)
        else:
            weights = mgda(seen.gram, self.norm_power, self.preference, self.preference_power)
        total = weights.sum()
        return np.asarray(weights / total) if total > 0 else self.preference  # no objective that counts has a gradient

    def state(self) -> dict[str, object]:
        """Return nothing: there is no state."""
        return {}

    def load(self, state: Mapping[str, object]) -> None:
        """Take nothing over."""


@method("mgda", "single-policy")
class MGDA:
    """Train one policy per wanted preference along common descent directions of its objectives.

    Source:
        Désidéri 2012; Sener and Koltun 2018 (MGDA); Li et al. 2025 (GAPO) for gradients divided by their norms and for
        preferences.

    Departures:
        The hull's shortest vector is exact, and taken in the metric of the step that is applied, on smoothed gradients
        (`rl.objective_steps`): so the step itself turns against no objective. Published code solves on raw gradients.
        With `preference: shared`, ours, gains go with preferences; `scaled` is the published way, under which the
        objective preferred least gains most.
    """

    settings: MGDASettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return one expert per trained preference."""
        weighting = f"{__name__}:{MGDAWeights.__name__}"
        planned = planned_policies(self.settings, preferences, budget)
        return tuple(expert_stage(self.settings, row, length, seed, weighting=weighting) for row, length in planned)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer a trained preference with its own policy, any other with the one estimated best for it."""
        return best_trained(task, results)
