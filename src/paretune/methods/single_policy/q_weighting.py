"""Q-learning of objective weights: from each point of a grid on the simplex to a neighbour, or to stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from paretune.bandits.q_learning import epsilon_greedy, updated
from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.methods.per_preference import best_trained
from paretune.methods.pulls import Pulls, PullSettings, means, pulled_stages
from paretune.rl.weighting import Seen


@dataclass(frozen=True)
class QWeightingSettings(PullSettings):
    """Settings of `QWeighting`, beside those of its policies and of its pulls."""

    divisions: int = 10  # of the simplex: the customary grid of 11 points for two objectives
    progress_bins: int = 1  # of the utility in its range, part of the state; more leave each hardly ever visited
    epsilon: float = 0.1  # chance of a move at random, textbook value
    q_learning_rate: float = 0.5  # few steps, so each counts
    discount: float = 0.5  # of what follows; a policy changes on the way, so what is far says little

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.divisions < 1 or self.progress_bins < 1:
            raise ConfigError(
                f"divisions and progress_bins must be at least 1, got {self.divisions} and {self.progress_bins}. Try "
                "10 and 1."
            )
        if not 0 <= self.epsilon <= 1 or not 0 < self.q_learning_rate <= 1 or not 0 <= self.discount < 1:
            raise ConfigError(
                "epsilon must be from 0 to 1, q_learning_rate above 0 and at most 1, discount from 0 to below 1, got "
                f"{self.epsilon}, {self.q_learning_rate} and {self.discount}. Try 0.1, 0.5 and 0.5."
            )


class GridWalk:
    """Objective weights at a point of the grid, which starts at the one nearest to the preference.

    Action 0 stays; each other action moves one division from one wanted objective to another. What would take from
    nothing is not allowed.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, preference: FloatArray, settings: Mapping[str, Any], ranges: FloatArray) -> None:
        self.settings, self.pulls, self.ranges = settings, Pulls(preference, settings), ranges
        wanted = len(self.pulls.wanted)
        self.moves = [(0, 0), *((one, other) for one in range(wanted) for other in range(wanted) if one != other)]
        self.place = nearest_point(self.pulls.preference[self.pulls.wanted], settings["divisions"])
        self.values: dict[str, list[float]] = {}  # Q of each action in each state that was visited
        self.left: list[Any] | None = None  # state and action since the last pull

    def measured(self, update: int) -> int:
        """Measure before each move, if there is more than one objective to weigh."""
        return self.pulls.due(update)

    def weigh(self, seen: Seen) -> FloatArray:
        """Pay the last move and make the next if development completions were made; return the weights `[K]`."""
        if seen.development is not None:
            self._move(seen.development, seen.generator)
        if len(self.pulls.wanted) == 1 or self.left is None:
            return self.pulls.preference
        weights = np.zeros(len(self.pulls.preference))
        weights[self.pulls.wanted] = self.place / self.place.sum()
        return weights

    def _move(self, scores: FloatArray, generator: np.random.Generator) -> None:
        payoff = self.pulls.centred(self.pulls.utility(self.pulls.gains(scores)), generator)
        state, allowed = self._state(), self._allowed()
        here = np.asarray(self.values.get(state, [0.0] * len(self.moves)))
        if self.left is not None and payoff is not None:
            before, action = self.left
            rate, discount = self.settings["q_learning_rate"], self.settings["discount"]
            then = np.asarray(self.values.get(before, [0.0] * len(self.moves)))
            self.values[before] = updated(then, action, payoff, here[allowed].max(), rate, discount).tolist()
            here = np.asarray(self.values.get(state, here))
        action = epsilon_greedy(here, allowed, self.settings["epsilon"], generator)
        taken, given = self.moves[action]
        self.place[taken] -= 1
        self.place[given] += 1
        self.left = [state, action]

    def _allowed(self) -> NDArray[np.bool_]:
        return np.asarray([one == other or self.place[one] > 0 for one, other in self.moves])

    def _state(self) -> str:
        """Name the state: the point, and how far the last utility is in its range, if that is known."""
        stored = np.asarray(self.pulls.scores, np.float64).reshape(-1, len(self.ranges))
        last = stored[-self.settings["measured_each"] :]
        low, high = (self.pulls.utility(end) for end in self.ranges.T)
        level, bins = (self.pulls.utility(means(last)) - low) / (high - low), self.settings["progress_bins"]
        if bins == 1:
            progress = "0"
        else:
            progress = "unknown" if np.isnan(level) else str(int(np.clip(level * bins, 0, bins - 1)))
        return ",".join(map(str, self.place)) + f";{progress}"

    def state(self) -> dict[str, object]:
        """Return the table, where it stands, and what was measured."""
        return {"place": self.place.tolist(), "values": self.values, "left": self.left, **self.pulls.state()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.place, self.values, self.left = np.asarray(state["place"], np.int64), state["values"], state["left"]
        self.pulls.load(state)


def nearest_point(preference: FloatArray, divisions: int) -> NDArray[np.int64]:
    """Return the point of the grid nearest to a preference, in divisions: the largest remainders are rounded up.

    Example:
        >>> nearest_point(np.asarray([0.55, 0.24, 0.21]), 10).tolist()
        [6, 2, 2]
    """
    exact = np.asarray(preference) * divisions
    point = np.floor(exact + 1e-9).astype(np.int64)
    lacking = np.argsort(point - exact, kind="stable")[: divisions - point.sum()]
    point[lacking] += 1
    return point


@method("q_weighting", "single-policy")
class QWeighting:
    """Train policies whose objective weights tabular Q-learning moves over a grid, paid by what scores gain.

    Source:
        Weights as actions of a Markov decision process, the dynamic weighting that Kong et al. 2025 list as [19];
        Watkins and Dayan 1992 for Q-learning.

    Departures:
        States are points of the simplex, and bins of the utility if asked for; the paper gives no grid. The walk starts
        at the preference, and no step leaves the objectives that are wanted; a corner is trained as by `linear`. The
        reward is the gain of `w . scores` on development prompts, in [0, 1] by quantiles of past gains less 1/2, so a
        state that was never visited, at 0, is neither good nor bad. Development completions are charged.
    """

    settings: QWeightingSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return one expert per trained preference.

        Raises:
            BudgetError: If a policy could not be measured and trained.
        """
        return pulled_stages(self.settings, GridWalk, preferences, budget, seed)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer a trained preference with its own policy, any other with the one estimated best for it."""
        return best_trained(task, results)
