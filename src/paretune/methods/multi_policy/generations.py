"""Rounds that are generations: offspring are bred and trained, all that live are measured again, the best live on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from paretune.core.preferences import FloatArray, add_points, centre, corners, das_dennis
from paretune.methods.multi_policy.individuals import Individual, plain
from paretune.methods.multi_policy.members import Members
from paretune.methods.multi_policy.rounds import Found
from paretune.methods.multi_policy.set_settings import GenerationSettings, whole_generations

Breed = Callable[[Found, int], list[Individual]]  # what lives, number of the generation -> offspring to be trained


def starting_weights(objectives: int, count: int) -> FloatArray:
    """Return objective weights of the first generation, `[count, K]`: corners, centre, points of finer and finer grids.

    Example:
        >>> starting_weights(2, 5).round(2).tolist()
        [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.67, 0.33], [0.33, 0.67]]
    """
    points, divisions = add_points(corners(objectives), centre(objectives)), 2
    while len(points) < count and objectives > 1:
        points, divisions = add_points(points, das_dennis(objectives, divisions)), divisions + 1
    return np.asarray(points[np.arange(count) % len(points)])


class Generations:
    """The generations of one trajectory."""

    def __init__(self, members: Members, settings: GenerationSettings, breed: Breed) -> None:
        """Take who trains and measures, and what breeds every generation but the first."""
        self.members, self.settings, self.breed = members, settings, breed

    def whole(self, length: int) -> int:
        """Return how many generations a length has room for, with a last measurement of all that live then."""
        return whole_generations(self.settings, length)

    def position(self, number: int) -> int:
        """Return where the prompts start that no generation before has used."""
        return number * self.settings.measured_each

    def starters(self) -> list[Individual]:
        """Return the first generation: the base model, each for weights of its own."""
        rows = starting_weights(len(self.members.task.objectives), self.settings.population)
        return [Individual(place, 0, "start", (), row) for place, row in enumerate(rows)]

    def finish(self, found: Found, number: int, left: int) -> Found:
        """Return what is there: what a length has beyond its generations measures them again."""
        del number, left
        return found

    def make(self, found: Found, number: int) -> Found:
        """Make a whole generation; old members are measured on fresh prompts too, so that luck does not last."""
        settings, members = self.settings, self.members
        offspring = self.breed(found, number) if found.living else self.starters()
        trained = members.train(offspring, [settings.steps] * len(offspring))
        everyone = members.measure([*found.living, *trained], self.position(number), settings.measured_each)
        living = members.ordered(everyone)[: settings.archive]
        records = [each.as_record() for each in everyone]
        members.log({"measured": records, "living": [each.number for each in living]}, number)
        now = {old.number: new for old, new in zip(found.living, everyone, strict=False)}
        born = [self._record(found.living, now, each) for each in everyone[len(found.living) :]]
        return Found(tuple(living), (*found.lineage, *born))

    def notes(self, found: Found) -> dict[str, object]:
        """Return nothing more."""
        del found
        return {}

    def _record(
        self, elites: Sequence[Individual], now: Mapping[int, Individual], child: Individual
    ) -> Mapping[str, Any]:
        """Return where a child comes from and, where it learned on, what that gained on the scale of the ranges.

        The gain is over what its parent measures now, on the same prompts: what its parent had measured before chose it
        as a parent, and is too high on average. That is what a prediction is asked from, and stands as `before`.
        """
        parents = [each for each in elites if each.number in child.parents]
        if child.operation != "training" or len(parents) != 1:
            return child.origin()
        (before,) = self.members.scaled(parents)
        both = [now[parents[0].number].since(parents[0]), child]
        start, after = self.members.scaled(both)
        noise = (self.members.scaled_errors(both) ** 2).sum(axis=0)
        step = {"before": plain(before), "gain": plain(after - start), "noise": plain(noise)}
        return {**child.origin(), **step}
