"""Chebyshev scalarisation: each policy raises the objective that lacks most to its ideal, not a weighted sum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, method
from paretune.core.settings import check_read, check_unread
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.methods.experts import PLANNING
from paretune.methods.objective_values import check_values, values_of
from paretune.methods.per_preference import (
    PerPreferenceSettings,
    TrainedUtility,
    best_trained,
    check_beta_stays,
    planned_experts,
)
from paretune.pareto.scalarisation import chebyshev_slopes
from paretune.rl.running_returns import RunningReturns, check_memory
from paretune.rl.weighting import Seen

FORMS = ("plain", "smooth", "augmented")


@dataclass(frozen=True)
class ChebyshevSettings(PerPreferenceSettings):
    """Settings of `Chebyshev`, beside those of one policy per preference."""

    form: str = "smooth"  # or plain: the worst objective alone; augmented: it and a share of all others
    smoothing: float = 0.05  # smooth: mu, in shares of the range; within mu log K of plain
    augmentation: float = 0.1  # augmented: rho, weight of the sum of shortfalls; Steuer and Choo: small
    ideal: dict[str, float] = field(default_factory=dict, metadata=PLANNING)  # by objective; else its highest reward
    nadir: dict[str, float] = field(default_factory=dict, metadata=PLANNING)  # by objective; else its lowest reward
    unit: str = field(default="reward", metadata=PLANNING)  # of both; or share: of the range, from 0 to 1
    memory: float = 0.8  # share of the estimated returns that an update leaves: five updates of 64 measure to .02

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("form", self.form, FORMS)
        if not 0 < self.smoothing < np.inf or not 0 <= self.augmentation < np.inf:
            raise ConfigError(
                f"smoothing must be positive and augmentation not negative, got {self.smoothing} and "
                f"{self.augmentation}. Try 0.05 and 0.1."
            )
        check_read(self, "form", {"smoothing": ("smooth",), "augmentation": ("augmented",)})
        if not (self.ideal or self.nadir):
            check_unread(self, ("unit",), "without an ideal or nadir")
        check_values("ideal", self.ideal, self.unit)
        check_values("nadir", self.nadir, self.unit)
        check_memory(self.memory)
        check_beta_stays(self.target_kl, "for chebyshev")


class ChebyshevWeights:
    """The slopes of the Chebyshev utility at an estimate of `J_k = E r_k - beta KL`, divided by their sum."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, preference: FloatArray, settings: Mapping[str, Any], ranges: FloatArray) -> None:
        form, self.preference, self.beta = settings["form"], np.asarray(preference, np.float64), settings["beta"]
        self.ideal, self.nadir = np.asarray(settings["ideal_point"]), np.asarray(settings["nadir_point"])
        self.smoothing = settings["smoothing"] if form == "smooth" else 0.0
        self.augmentation = settings["augmentation"] if form == "augmented" else 0.0
        self.returns = RunningReturns((self.ideal + self.nadir) / 2, settings["memory"])

    def measured(self, update: int) -> int:
        """Measure nothing: training completions tell the returns."""
        return 0

    def weigh(self, seen: Seen) -> FloatArray:
        """Take in the returns of this update, and return the weights, `[K]`."""
        scores = self.returns.add(seen.returns - self.beta * seen.kl)
        slopes = chebyshev_slopes(scores, self.preference, self.ideal, self.nadir, self.smoothing, self.augmentation)
        return np.asarray(slopes / slopes.sum())

    def state(self) -> dict[str, object]:
        """Return the estimates."""
        return self.returns.state()

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.returns.load(state)


@method("chebyshev", "single-policy", version=2)
class Chebyshev:
    """Train one policy per wanted preference for the worst of its objectives' weighted distances to an ideal point.

    Source:
        Bowman 1976; Steuer and Choo 1983 (augmented); Lin et al. 2024 (smooth).

    Departures:
        The utility is of *expected* returns, not of each completion: the weights of an update are its slopes at a
        running estimate of them. Returns are `J_k = E r_k - beta KL`, so the KL is paid once, whatever the weights,
        with the task's beta (`target_kl` is refused): the slopes divided by their sum weigh objectives whose gradients
        each have the whole KL in it, which is the direction of the utility's own gradient. Distances are divided by
        ideal less nadir, by default the declared range: the ideal is declared, not a running maximum.
    """

    settings: ChebyshevSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return one expert per trained preference.

        Raises:
            ConfigError: If ideal or nadir name no objective of the task, or do not fit its rewards.
        """
        ideal, nadir = self._points(task)
        return planned_experts(
            self.settings, preferences, budget, seed, ChebyshevWeights,
            ideal_point=ideal, nadir_point=nadir, beta=task.beta,
        )  # fmt: skip

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer a trained preference with its own policy, any other with the one of the best estimated utility.

        In every form by the Chebyshev utility of `core.utilities`, at the ideal and the nadir of the settings.
        """
        ideal, nadir = self._points(task)
        widths = [high - low for high, low in zip(ideal, nadir, strict=True)]
        own = TrainedUtility(lambda scores, kl: scores - task.beta * kl[:, None], "chebyshev", ideal, widths)
        return best_trained(task, results, own)

    def _points(self, task: Task) -> tuple[list[float], list[float]]:
        """Return ideal and nadir, `[K]` each."""
        own, points = self.settings, []
        for name, given, end in (("ideal", own.ideal, 1), ("nadir", own.nadir, 0)):
            found = zip(task.objectives, values_of(name, given, own.unit, task), strict=True)
            points.append([each.range[end] if value is None else value for each, value in found])
        ideal, nadir = points
        if not all(high > low for high, low in zip(ideal, nadir, strict=True)):
            raise ConfigError(f"ideal must be above nadir, got {ideal} and {nadir}. Correct one.")
        return ideal, nadir
