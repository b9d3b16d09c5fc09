"""Arms of a bandit over expert weights: a rule from preferences to weights, and steps away from it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray, das_dennis

# of a bandit that is planned: each has to be pulled; and chances by Thompson sampling, in time that grows with their
# square, take .64 s for a round of 64 with 100 arms, 1.9 s with 200, and some 40 s with these, in arrays of 25 MB
MOST_ARMS = 1000


class Arms(NamedTuple):
    """A arms over E experts: `g = scale ((1 - step) rule(w) + step point)`. The first is the rule itself.

    An arm so means the same for every preference: the rule, and so far from there towards a point.

    Attributes:
        steps: How far each goes towards its point, `[A]`; 0 stays at the rule.
        points: `[A, E]`, on the simplex.
        scales: What weights are multiplied by, `[A]`: outside of the simplex where it is not 1.
    """

    steps: FloatArray
    points: FloatArray
    scales: FloatArray

    def weights(self, prior: FloatArray) -> FloatArray:
        """Return the expert weights of all arms where the rule says `prior` `[B, E]`, `[B, A, E]`."""
        kept = (self.scales * (1 - self.steps))[:, None]
        return np.asarray(kept * prior[:, None] + (self.scales * self.steps)[:, None] * self.points)

    def names(self) -> list[str]:
        """Return what each arm is, for people."""
        places = [", ".join(f"{weight:.2g}" for weight in point) for point in self.points]
        toward = [
            f" and {step:.2g} towards ({place})" if step else "" for step, place in zip(self.steps, places, strict=True)
        ]
        return [f"rule{each}, times {scale:.2g}" for each, scale in zip(toward, self.scales, strict=True)]


def arms_of(experts: int, divisions: int, step: float, stretch: float) -> Arms:
    """Return the rule and steps towards all points of a lattice on the simplex of E experts, plain and stretched.

    Args:
        experts: Number of experts E.
        divisions: Of the lattice; 1: its vertices, the experts themselves.
        step: How far towards a point, above 0; at 1 it is the point itself, whatever the preference.
        stretch: What weights are also multiplied by, positive; 1 for no such arms.

    Raises:
        ConfigError: If there is no way to go.

    Source:
        Ours, so that an arm means the same for every preference.

    Example:
        >>> arms_of(2, 1, 0.5, 2.0).weights(np.asarray([[0.6, 0.4]])).round(2).tolist()
        [[[0.6, 0.4], [0.8, 0.2], [0.3, 0.7], [1.2, 0.8], [1.6, 0.4], [0.6, 1.4]]]
    """
    _check_steps(divisions, step, stretch)
    lattice = das_dennis(experts, divisions)
    points = np.concatenate([np.full((1, experts), 1 / experts), lattice])
    steps = np.concatenate([[0.0], np.full(len(lattice), step)])
    scales = [1.0] if stretch == 1 else [1.0, stretch]
    return Arms(
        np.tile(steps, len(scales)), np.tile(points, (len(scales), 1)), np.repeat(np.asarray(scales), len(points))
    )


def check_arms(experts: int, divisions: int, step: float, stretch: float) -> None:
    """Check, before any are made, that a bandit can learn about the arms that `arms_of` returns.

    Raises:
        ConfigError: If there is no way to go, or more arms than `MOST_ARMS` come of it.
    """
    _check_steps(divisions, step, stretch)
    count = (1 + math.comb(divisions + experts - 1, experts - 1)) * (1 if stretch == 1 else 2)
    if count > MOST_ARMS:
        raise ConfigError(
            f"arms must be at most {MOST_ARMS:,}, got {count:,} of {divisions} divisions between {experts} experts. "
            "Write fewer divisions."
        )


def _check_steps(divisions: int, step: float, stretch: float) -> None:
    if divisions < 1:
        raise ConfigError(f"divisions must be at least 1, got {divisions}. Try 1: the experts themselves.")
    if not 0 < step <= 1:
        raise ConfigError(f"step must be above 0 and at most 1, got {step}. Try 0.5.")
    if not 0 < stretch < np.inf:
        raise ConfigError(f"stretch must be positive, got {stretch}. Write 1 for no arms outside of the simplex.")
