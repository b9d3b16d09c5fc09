"""Which expert weights to measure next, from what was measured before: by chance, by slopes, by small changes."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from paretune.core.preferences import FloatArray
from paretune.methods.hierarchical_grid import Found, Measure, Space, distinct, keys_of, settle

SMOOTHED = 0.02  # share of the centre in where mirror descent starts: a weight of 0 would stay 0 for ever
GROWTH = 1.5  # of a step that paid; four that did not undo one: the rule of one fifth (Rechenberg 1973)


class Proposals(Protocol):
    """A search: asked in turn for candidates, with all that was measured so far."""

    def each(self, space: Space) -> int:
        """Return how many candidates a round has at most."""
        ...

    def ask(self, space: Space, found: Found, generator: np.random.Generator) -> FloatArray:
        """Return the candidates of the next round, `[C, E]`; those that are known cost nothing."""
        ...


class RandomPoints:
    """Points drawn uniformly from the simplex, or from the enlarged one: all preferences share them."""

    def __init__(self, candidates: int) -> None:
        self.candidates = candidates

    def each(self, space: Space) -> int:
        """Return how many candidates a round has."""
        return self.candidates

    def ask(self, space: Space, found: Found, generator: np.random.Generator) -> FloatArray:
        """Return new points, `[C, E]`."""
        return space.enlarged(generator.dirichlet(np.ones(space.experts), size=self.candidates))


class MirrorDescent:
    """Exponentiated-gradient ascent of each preference's utility on the simplex, slopes from finite differences.

    In a round the utility u is measured at each preference's point p and at `p + h (e_i - p)` for every expert i, all
    under the same noise, which differences lose. `d_i = (u_i - u) / h` is the slope towards corner i, and `p_i` is
    multiplied by `exp(rate d_i / S)`, where `S^2` is the sum over rounds of the largest `d_i^2`: the first step has the
    size of the rate in any unit of utility, later ones are shorter.

    Source:
        Wang et al. 2025 (MPO), mirror descent on the weights of policies; Kivinen and Warmuth 1997; the rate of
        AdaGrad (Duchi et al. 2011), one for all weights.

    Departures:
        MPO's objective is the worst of all objectives, for nobody in particular, its gradient exact on completions of
        the reference policy. Here each preference has its own utility, whatever the experts are mixed at.
    """

    def __init__(self, difference: float, rate: float) -> None:
        self.difference, self.rate = difference, rate
        self.points = np.zeros((0, 0))  # [M, E], on the simplex
        self.squares = np.zeros(0)
        self.asked = np.zeros((0, 0, 0))  # [M, 1 + E, E]

    def each(self, space: Space) -> int:
        """Return how many candidates a round has at most: a point and one for each expert, for every preference."""
        return len(space.utilities) * (1 + space.experts)

    def ask(self, space: Space, found: Found, generator: np.random.Generator) -> FloatArray:
        """Return the points after a step, if slopes are known, and those around them, `[M (1 + E), E]`."""
        if self.points.size:
            self._step(space, found)
        else:
            shares = space.first_candidates.clip(min=0)
            shares = shares / shares.sum(axis=1, keepdims=True)
            self.points = (1 - SMOOTHED) * shares + SMOOTHED / space.experts
            self.squares = np.zeros(len(shares))
        towards = np.eye(space.experts)[None] - self.points[:, None]  # [M, E, E]
        around = self.points[:, None] + self.difference * towards
        self.asked = space.enlarged(np.concatenate([self.points[:, None], around], axis=1))
        return self.asked.reshape(-1, space.experts)

    def _step(self, space: Space, found: Found) -> None:
        known = set(keys_of(found.candidates))
        for place, utility in enumerate(space.utilities):
            if not set(keys_of(self.asked[place])) <= known:
                continue  # the budget ended before all of them were measured
            values = found.of(self.asked[place]) @ utility
            slopes = (values[1:] - values[0]) / self.difference
            self.squares[place] += np.square(slopes).max()
            if self.squares[place] == 0:
                continue  # flat so far
            exponents = self.rate * slopes / np.sqrt(self.squares[place])
            grown = self.points[place] * np.exp(exponents - exponents.max())
            self.points[place] = grown / grown.sum()


class SmallChanges:
    """For each preference, random changes of the best weights known so far: a (1 + L) evolution strategy.

    Weights need not sum to one: each lies in `[-beyond, 1 + beyond]`. Steps are normal. A preference's grow after a
    round in which its best known value rose: by any of its L children, or by a candidate of another preference.

    Source:
        Huang et al. 2023 (LoraHub), gradient-free search of adapters' weights on few examples; Rechenberg 1973.

    Departures:
        LoraHub asks a library for a portfolio of optimisers; this is one of its members. It measures the loss of texts.
        The rule of one fifth counts single children; here a round counts once, which pays more often the larger L is.
    """

    def __init__(self, candidates: int, step: float) -> None:
        self.candidates, self.step = candidates, step
        self.steps = np.zeros(0)
        self.best = np.zeros(0)  # value of each preference's parent when its children were made

    def each(self, space: Space) -> int:
        """Return how many candidates a round has at most: so many for every preference."""
        return len(space.utilities) * self.candidates

    def ask(self, space: Space, found: Found, generator: np.random.Generator) -> FloatArray:
        """Return children of the best candidate of each preference, `[M L, E]`."""
        best = (space.utilities @ found.scores.T).max(axis=1)
        if self.steps.size:
            self.steps = self.steps * np.where(best > self.best, GROWTH, GROWTH**-0.25)
        else:
            self.steps = np.full(len(best), self.step)
        self.best = best
        parents = np.stack([found.best(utility) for utility in space.utilities])
        changes = generator.normal(size=(len(best), self.candidates, space.experts)) * self.steps[:, None, None]
        children = parents[:, None] + changes
        return np.asarray(children.reshape(-1, space.experts).clip(-space.beyond, 1 + space.beyond))


def search_in_rounds(
    space: Space,
    proposals: Proposals,
    rounds: int,
    evaluations: int,
    measure: Measure,
    generator: np.random.Generator,
) -> Found:
    """Measure the preferences' own weights, then what is proposed, round by round, and measure as often as planned.

    What is left of the plan measures winners again, as in `hierarchical_search`.

    Args:
        space: What is searched; its first candidates are measured first.
        proposals: What to measure next.
        rounds: So many rounds.
        evaluations: How many measurements there are in all, at least those of the first candidates.
        measure: Measures candidates; all of a round in one call.
        generator: What proposals draw from.
    """
    found, left = Found(), evaluations
    wanted = distinct(space.first_candidates)
    for _ in range(rounds + 1):
        if found.sums:
            wanted = distinct(proposals.ask(space, found, generator))
        new = [row for row, key in zip(wanted, keys_of(wanted), strict=True) if key not in found.sums][:left]
        if new:
            found.add(np.stack(new), measure(np.stack(new), 0))
            left -= len(new)
    settle(found, space.utilities, left, measure)
    return found
