"""A hierarchical grid over expert weights: which mixtures to measure next, from what was measured before."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from paretune.core.errors import BudgetError, ConfigError, ShapeError
from paretune.core.preferences import FloatArray
from paretune.methods.experts import DIGITS, whole_passes

# of a cube that is planned: it has 59,049 points, and halving it takes 4 s for each preference and round, four times as
# long with each dimension more
MOST_DIMENSIONS = 10

# candidates [C, E], how often measured before -> mean scores [C, K], as the task judges them
Measure = Callable[[FloatArray, int], FloatArray]


class HierarchicalGrid:
    """A cube that is halved along every axis, round after round, towards the part whose corners measured best.

    Source:
        Kong et al. 2025 (EMORL), hierarchical grid search.
    """

    def __init__(self, dimensions: int) -> None:
        self.low, self.side = np.zeros(dimensions), 1.0

    def points(self) -> FloatArray:
        """Return three points an axis, `[3^d, d]`, the last axis changing fastest."""
        steps = np.asarray(list(itertools.product((0.0, 0.5, 1.0), repeat=len(self.low))), dtype=np.float64)
        return np.asarray(self.low + self.side * steps)

    def narrow(self, values: FloatArray) -> None:
        """Go on with the half-sized cube of the highest sum over its corners, the first of equals.

        Args:
            values: Of `points`, `[3^d]`.
        """
        size = len(self.low)
        cube = values.reshape((3,) * size)
        corners = list(itertools.product((0, 1), repeat=size))
        sums = [sum(cube[tuple(np.add(start, corner))] for corner in corners) for start in corners]
        self.side /= 2
        self.low = self.low + self.side * np.asarray(corners[int(np.round(sums, DIGITS).argmax())], dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Space:
    """What is searched.

    Attributes:
        experts: Number of experts E.
        utilities: What is to be found the best weights for, `[M, K]`: a candidate's value is `utility . scores`.
        simplex: Whether weights lie on the simplex, or each in [0, 1].
        first_candidates: Candidates of the first round beside the grid, `[X, E]`.
        beyond: By which share of its size the simplex is enlarged about its centre; then some weights may be negative.
    """

    experts: int
    utilities: FloatArray
    simplex: bool
    first_candidates: FloatArray
    beyond: float = 0.0

    @property
    def dimensions(self) -> int:
        """Dimensions of the cube that is halved."""
        return self.experts - 1 if self.simplex else self.experts

    def weights(self, points: FloatArray) -> FloatArray:
        """Return the candidates at points of the cube, `[P, E]`.

        On the simplex each coordinate is the share that an expert takes of what those before it have left.
        """
        if not self.simplex:
            return points
        left, columns = np.ones(len(points)), []
        for share in points.T:
            columns.append(left * share)
            left = left * (1 - share)
        return self.enlarged(np.stack([*columns, left], axis=1))

    def enlarged(self, shares: FloatArray) -> FloatArray:
        """Return the candidates at points of the simplex, `[P, E]`: further from its centre by `beyond`."""
        return np.asarray(shares + self.beyond * (shares - 1 / self.experts)) if self.beyond else shares

    def repeated(self, rounds: int) -> int:
        """Return how many measurements some rounds make without a memory, every search for itself."""
        each: int = 3**self.dimensions
        return rounds * len(self.utilities) * each + len(self.first_candidates)

    def first(self) -> FloatArray:
        """Return the candidates of the first round, each once, `[C, E]`."""
        return distinct(
            np.concatenate([self.weights(HierarchicalGrid(self.dimensions).points()), self.first_candidates])
        )

    def most(self, rounds: int) -> int:
        """Return how many candidates some rounds measure at most: a halved cube has measured corners."""
        return len(self.first()) + (rounds - 1) * self._new()

    def affordable(self, rounds: int, measured_each: int, completions: int, prompts: int) -> tuple[int, int, int]:
        """Plan a search of at most so many rounds that a budget allows; see `affordable`.

        Raises:
            ConfigError: If there are too many experts for a grid, which is not made then.
        """
        if self.dimensions > MOST_DIMENSIONS:
            most = MOST_DIMENSIONS + self.experts - self.dimensions
            raise ConfigError(
                f"experts of a grid search must be at most {most}, got {self.experts}: three points an axis are "
                f"3^{self.dimensions} in all. Train fewer experts, or search their weights in another way."
            )
        first = self.most(1)  # once: it lists the whole grid
        return affordable([first + count * self._new() for count in range(rounds)], measured_each, completions, prompts)

    def _new(self) -> int:
        """Return how many candidates a round behind the first measures at most."""
        each: int = 3**self.dimensions - 2**self.dimensions
        return len(self.utilities) * each


def affordable(most: Sequence[int], measured_each: int, completions: int, prompts: int) -> tuple[int, int, int]:
    """Plan a search that a budget allows.

    Args:
        most: How many candidates are measured at most, in one round, in two, and so on.
        measured_each: Completions of a candidate, at most.
        completions: That may be spent.
        prompts: Number of development prompts, which candidates are measured on evenly.

    Returns:
        Rounds, measurements, and completions of each.

    Raises:
        BudgetError: If there is not a completion for each candidate of the first round.

    Example:
        >>> affordable([7, 11, 15], measured_each=32, completions=360, prompts=64)
        (2, 11, 32)
    """
    each = whole_passes(min(measured_each, completions // most[0]), prompts)
    if each < 1:
        raise BudgetError(
            f"budget must leave a completion to measure each of {most[0]} mixtures with, got {completions} for the "
            "search. Raise it, or the search's share of it."
        )
    rounds = max(count for count, wanted in enumerate(most, 1) if count == 1 or wanted * each <= completions)
    return rounds, most[rounds - 1], each


@dataclass(eq=False)
class Found:
    """Candidates that were measured.

    Attributes:
        sums: Candidate -> sum of its mean scores over how often it was measured, `[K]`.
        times: Candidate -> how often.
    """

    sums: dict[tuple[float, ...], FloatArray] = field(default_factory=dict)
    times: dict[tuple[float, ...], int] = field(default_factory=dict)

    @property
    def candidates(self) -> FloatArray:
        """All of them in the order of their first measurement, `[C, E]`."""
        return np.asarray(list(self.sums), dtype=np.float64)

    @property
    def scores(self) -> FloatArray:
        """Their mean scores, `[C, K]`."""
        return np.stack([self.sums[each] / self.times[each] for each in self.sums])

    def of(self, candidates: FloatArray) -> FloatArray:
        """Return the mean scores of candidates, `[C, K]`."""
        return np.stack([self.sums[key] / self.times[key] for key in keys_of(candidates)])

    def best(self, utility: FloatArray) -> FloatArray:
        """Return the candidate of the highest utility, `[E]`."""
        return np.asarray(self.candidates[int((self.scores @ utility).round(DIGITS).argmax())])

    def add(self, candidates: FloatArray, scores: FloatArray) -> None:
        """Note a measurement of candidates `[C, E]`."""
        for key, row in zip(keys_of(candidates), scores, strict=True):
            self.sums[key] = self.sums.get(key, np.zeros(len(row))) + row
            self.times[key] = self.times.get(key, 0) + 1


def hierarchical_search(space: Space, rounds: int, evaluations: int, measure: Measure, memo: bool = True) -> Found:
    """Search the best expert weights for every utility at once, and measure as often as was planned.

    Every utility halves a cube of its own; what several want to know is measured once. Measurements that are left are
    spent on the winners, again and again: the highest of many noisy means is too high, and a second look tells.

    Args:
        space: What is searched.
        rounds: How often three points an axis are measured.
        evaluations: How many measurements there are in all, at least those of the first round.
        measure: Measures candidates.
        memo: Whether a candidate that was measured is known. Else every search measures all points of its cube in every
            round, under the same noise: what is found is the same, for more measurements than `evaluations`.

    Raises:
        ShapeError: If there are fewer measurements than candidates of the first round.
    """
    found, grids = Found(), [HierarchicalGrid(space.dimensions) for _ in space.utilities]
    wanted = space.first()
    if evaluations < len(wanted):
        raise ShapeError(
            f"evaluations must be at least those of the first round ({len(wanted)}), got {evaluations}. Plan more."
        )
    left = evaluations
    for _ in range(rounds):
        new = [row for row, key in zip(wanted, keys_of(wanted), strict=True) if key not in found.sums]
        if len(new) > left:
            break
        if not memo:
            points = [space.weights(grid.points()) for grid in grids]
            asked = np.concatenate([*points, space.first_candidates] if not found.sums else points)
            known = dict(zip(keys_of(asked), measure(asked, 0), strict=True))
            if new:
                found.add(np.stack(new), np.stack([known[key] for key in keys_of(np.stack(new))]))
        elif new:
            found.add(np.stack(new), measure(np.stack(new), 0))
        left -= len(new)
        for grid, utility in zip(grids, space.utilities, strict=True):
            grid.narrow(found.of(space.weights(grid.points())) @ utility)
        wanted = distinct(np.concatenate([space.weights(grid.points()) for grid in grids]))
    settle(found, space.utilities, left, measure)
    return found


def settle(found: Found, utilities: FloatArray, left: int, measure: Measure) -> None:
    """Measure the winners again, so often in all as measurements are left.

    Args:
        found: Candidates that were measured; it takes what comes.
        utilities: What there are winners for, `[M, K]`.
        left: How many measurements.
        measure: Measures candidates.
    """
    while left:
        again = distinct(np.stack([found.best(utility) for utility in utilities]))[:left]
        times = [found.times[key] for key in keys_of(again)]
        for count in sorted(set(times)):  # each time with noise of its own
            rows = again[[place for place, each in enumerate(times) if each == count]]
            found.add(rows, measure(rows, count))
        left -= len(again)


def keys_of(candidates: FloatArray) -> list[tuple[float, ...]]:
    """Return what tells candidates from others, one key each; -0.0 and 0.0 are one weight."""
    return [tuple(row) for row in (candidates.round(DIGITS) + 0.0).tolist()]


def distinct(candidates: FloatArray) -> FloatArray:
    """Return candidates `[C, E]` once each, in the order of their first place."""
    return np.asarray(list(dict.fromkeys(keys_of(candidates))), dtype=np.float64)
