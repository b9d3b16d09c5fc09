"""What dynamic weightings share: development scores measured every few updates, whose gains pay for a choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from paretune.bandits.payoffs import FEEDBACK, fed_back, scaled
from paretune.core.checks import check_choice
from paretune.core.errors import BudgetError, ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.stages import Stage
from paretune.methods.experts import EXPERT_VERSION
from paretune.methods.per_preference import PerPreferenceSettings, planned_experts, planned_policies

SHUFFLED_VERSION = 3  # of experts told shuffled feedback: raised with `EXPERT_VERSION`, and when what they hear changes
PAYOFFS = 20  # past ones that a payoff is scaled by: gains shrink as training goes on, so old ones say little


@dataclass(frozen=True)
class PullSettings(PerPreferenceSettings):
    """Settings of methods that choose anew every few updates, beside those of their policies."""

    updates_per_pull: int = 4  # published for DynaOpt: 10, of 1,000; a policy here makes some 20 to 60
    measured_each: int = 32  # development completions a pull, charged, about a tenth of all; published: up to 200
    history: int = 200  # stored development completions that a pull's are compared with, as published for DynaOpt
    feedback: str = "measured"  # or shuffled: the control, payoffs of random earlier pulls at the same cost

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("feedback", self.feedback, FEEDBACK)
        if self.updates_per_pull < 1 or self.history < 1:
            raise ConfigError(
                f"updates_per_pull and history must be at least 1, got {self.updates_per_pull} and {self.history}. "
                "Try 4 and 200."
            )
        if self.measured_each < 1 or self.measured_each % self.group_size:
            raise ConfigError(
                f"measured_each must be a positive multiple of group_size ({self.group_size}), so that budgets come "
                f"out even, got {self.measured_each}. Try {4 * self.group_size}."
            )


@dataclass(frozen=True)
class Exp3Settings(PullSettings):
    """Settings of methods whose pulls are drawn by Exp3."""

    gamma: float = 0.07  # exploration, as published for DynaOpt, and as its code has it for DORB
    arm_learning_rate: float = 1.0  # eta; published: gamma, which learns nothing from some 15 pulls; docs/papers.md

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.gamma <= 1:
            raise ConfigError(f"gamma must be above 0 and at most 1, got {self.gamma}. Try 0.07.")
        if not 0 < self.arm_learning_rate < np.inf:
            raise ConfigError(f"arm_learning_rate must be positive, got {self.arm_learning_rate}. Try 1.0.")


@dataclass(frozen=True)
class FactorSettings(PullSettings):
    """Settings of methods whose pulls raise a factor of an objective, see `Factors`."""

    step: float = 0.2  # what a pull adds to the log weight of its objective
    fading: float = 0.8  # what is left of it at the next pull, so no factor exceeds e^(.2 / (1 - .8)) = 2.7

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.step < np.inf:
            raise ConfigError(f"step must be positive, got {self.step}. Try 0.2.")
        if not 0 <= self.fading < 1:
            raise ConfigError(f"fading must be at least 0 and below 1, got {self.fading}. Try 0.8.")


def pulled_stages(
    settings: PullSettings, weighting: type, preferences: FloatArray, budget: int, seed: int
) -> tuple[Stage, ...]:
    """Return one expert per trained preference, each with a weighting that measures before every pull.

    Raises:
        BudgetError: If a policy could not be measured and trained.
    """
    planned = planned_policies(settings, preferences, budget)
    least = settings.measured_each + settings.group_size
    if min(length for _, length in planned) < least:
        raise BudgetError(
            f"budget must give each of {len(planned)} policies a measurement and a group, {least} completions, "
            f"got {budget}. Raise it, or lower measured_each ({settings.measured_each})."
        )
    version = EXPERT_VERSION if settings.feedback == "measured" else SHUFFLED_VERSION
    return planned_experts(settings, preferences, budget, seed, weighting, version=version)


class Pulls:
    """When a weighting measures, what it measured, and the payoffs that came of it.

    Attributes:
        scores: Stored development scores, oldest first, None where one is missing.
        payoffs: The last `PAYOFFS` of the past, oldest first, which the next is scaled by.
        earlier: What choices of the past were due, oldest first: all, as neighbours are alike; kept for the control.
    """

    def __init__(self, preference: FloatArray, settings: Mapping[str, Any]) -> None:
        self.preference, self.settings = np.asarray(preference, np.float64), settings
        self.wanted = np.flatnonzero(self.preference > 0)
        self.scores: list[list[float | None]] = []
        self.payoffs: list[float] = []
        self.earlier: list[float] = []

    def due(self, update: int) -> int:
        """Return how many completions to measure before an update: some before each pull, if there is a choice."""
        pull = update % self.settings["updates_per_pull"] == 0
        return int(self.settings["measured_each"]) if pull and len(self.wanted) > 1 else 0

    def gains(self, scores: FloatArray) -> FloatArray:
        """Store scores `[N, K]`; return what their means gained on those stored before, `[K]`, NaN if not known."""
        before = np.asarray(self.scores, dtype=np.float64).reshape(-1, len(self.preference))  # None becomes NaN
        gained = means(scores) - means(before)
        rows = [[None if np.isnan(score) else float(score) for score in row] for row in scores]
        self.scores = [*self.scores, *rows][-self.settings["history"] :]
        return np.asarray(gained)

    def utility(self, values: FloatArray) -> float:
        """Return `preference . values` over the objectives with weight; NaN if one of them is."""
        return float(self.preference[self.wanted] @ values[self.wanted])

    def told(self, payoff: float, generator: np.random.Generator) -> float | None:
        """Keep a payoff; return the one that the choice is told, see `fed_back`, or None if it cannot be told any."""
        return self._told(payoff, payoff, generator)

    def centred(self, payoff: float, generator: np.random.Generator) -> float | None:
        """Do `told`, mapped by past payoffs to [-1/2, 1/2]: a payoff in the middle of them says nothing.

        The control is told what an earlier choice was told in its time: gains shrink as training goes on, and an early
        one, mapped by late ones, would be out of all proportion.
        """
        return self._told(payoff, scaled(payoff, self.payoffs) - 0.5, generator)

    def _told(self, payoff: float, due: float, generator: np.random.Generator) -> float | None:
        if not np.isfinite(payoff):
            return None
        given = fed_back(due, self.earlier, self.settings["feedback"], generator)
        self.payoffs = [*self.payoffs, payoff][-PAYOFFS:]
        self.earlier = kept([*self.earlier, due], self.settings["feedback"])
        return given

    def state(self) -> dict[str, object]:
        """Return what was measured."""
        return {"scores": self.scores, "payoffs": self.payoffs, "earlier": self.earlier}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.scores, self.payoffs, self.earlier = state["scores"], state["payoffs"], state["earlier"]


class Factors:
    """Factors on a preference: a raise multiplies one by `e^step`, and all fade, so weights rise and fall, bounded."""

    def __init__(self, preference: FloatArray, settings: Mapping[str, Any]) -> None:
        self.preference, self.settings = np.asarray(preference, np.float64), settings
        self.logs = np.zeros(len(self.preference))

    def pull(self, objective: int | None) -> None:
        """Let all factors fade, then raise that of one objective, or of none."""
        self.logs = self.logs * self.settings["fading"]
        if objective is not None:
            self.logs[objective] += self.settings["step"]

    @property
    def weights(self) -> FloatArray:
        """The preference times the factors, normalised, `[K]`."""
        weights = self.preference * np.exp(self.logs - self.logs.max())
        return np.asarray(weights / weights.sum())


def kept(earlier: list[float], feedback: str) -> list[float]:
    """Return what earlier choices were due as far as later ones may be told it."""
    return earlier if feedback == "shuffled" else []


def means(scores: FloatArray) -> FloatArray:
    """Return the mean of each column `[K]` over what is not missing; NaN where all is."""
    present = ~np.isnan(scores)
    counts = present.sum(axis=0)
    sums = np.where(present, scores, 0.0).sum(axis=0)
    return np.asarray(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))
