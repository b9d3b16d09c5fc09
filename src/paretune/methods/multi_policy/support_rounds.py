"""The run function of linear support: which weights the members of the next round are trained for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paretune.core.preferences import FloatArray, nearest
from paretune.core.stages import Stage, StageContext
from paretune.methods.experts import settings_of
from paretune.methods.multi_policy.individuals import Individual
from paretune.methods.multi_policy.linear_support import LinearSupportSettings
from paretune.methods.multi_policy.members import Members
from paretune.methods.multi_policy.rounds import Found, run_rounds
from paretune.pareto.linear_support import Support, possible_gains


def support(context: StageContext) -> None:
    """Train a set by linear support for each trajectory; see `rounds.run_rounds` for what it leaves."""
    run_rounds(context, prepared)


def prepared(context: StageContext, stage: Stage) -> SupportRounds:
    """Return the rounds of the trajectory whose longest stage is given."""
    settings = settings_of(LinearSupportSettings, stage)
    return SupportRounds(Members(context, stage, settings), settings)


@dataclass(frozen=True, eq=False)
class Outlook:
    """What members that are known leave to be gained.

    Attributes:
        support: With trained policies taken as the best for their weights, as measured.
        noise: Of the best member's measured utility at each of its corners, in utility, `[C]`.
        doubted: With each of them allowed to be better by its noise: what the certificate is of.
    """

    support: Support
    noise: FloatArray
    doubted: Support

    @property
    def open(self) -> FloatArray:
        """Corners at which more can be gained than noise, the largest gain first, `[O, K]`."""
        return np.asarray(self.support.corners[self.support.gains > self.noise])


class SupportRounds:
    """The rounds of one trajectory: the corners of the simplex first."""

    def __init__(self, members: Members, settings: LinearSupportSettings) -> None:
        """Take who trains and measures."""
        self.members, self.settings = members, settings

    def whole(self, length: int) -> int:
        """Return how many whole rounds a length has room for."""
        first = len(self.members.task.objectives) * self.settings.each
        return 0 if length < first else 1 + (length - first) // (self.settings.round_size * self.settings.each)

    def position(self, number: int) -> int:
        """Return where the prompts start that no member was measured on: in the rounds all see the same ones."""
        del number
        return self.settings.each - self.settings.trained

    def starters(self) -> list[Individual]:
        """Return the base model once for each objective."""
        rows = np.eye(len(self.members.task.objectives))
        return [Individual(place, 0, "start", (), row) for place, row in enumerate(rows)]

    def make(self, found: Found, number: int) -> Found:
        """Train the members of a round and measure them; nobody is ever dropped."""
        chosen = self.next_members(found, number, self.settings.round_size) if found.living else self.starters()
        return self._with(found, number, chosen, self.settings.trained)

    def finish(self, found: Found, number: int, left: int) -> Found:
        """Train as many members as have more than half of their completions left, shorter ones where need be."""
        each, update = self.settings.each, self.settings.completions_per_update
        count = (left + each // 2 - 1) // each
        length = min(
            self.settings.trained, ((left // count - self.position(number)) // update * update) if count else 0
        )
        if length < update:
            return found
        return self._with(found, number, self.next_members(found, number, count), length)

    def _with(self, found: Found, number: int, chosen: Sequence[Individual], length: int) -> Found:
        """Return what is known with members that are trained for so many completions each."""
        members = self.members
        trained = members.train(chosen, [length] * len(chosen))
        measured = members.measure(trained, 0, self.position(number))
        records = [each.as_record() for each in measured]
        members.log({"measured": records, "living": [each.number for each in (*found.living, *measured)]}, number)
        return Found((*found.living, *measured), (*found.lineage, *(each.origin() for each in measured)))

    def notes(self, found: Found) -> dict[str, object]:
        """Return the certificate: the most that any weights can still gain, where, and at how many corners."""
        outlook = self.outlook(found.living)
        if outlook is None:
            return {}
        best = outlook.doubted.corners[0].tolist()
        known = {"remaining_gain": outlook.doubted.certificate, "at": best, "open_corners": len(outlook.open)}
        return {"certificate": known}

    def outlook(self, living: Sequence[Individual]) -> Outlook | None:
        """Return what is left to be gained; None where an objective has no member with scores that bounds it.

        Raises:
            RewardError: If nobody has a score on every objective.
        """
        known, doubt = self.members.known(living), self.settings.doubt
        scores, errors = self.members.scores(known), self.members.errors(known)
        weights = np.asarray([each.objective_weights for each in known])
        if not (weights.max(axis=0) == 1).all():
            return None

        def noise(rows: FloatArray) -> FloatArray:
            best = (rows @ scores.T).argmax(axis=1)
            return np.asarray(doubt * np.sqrt((rows**2 * errors[best] ** 2).sum(axis=1)))

        exact = possible_gains(scores, weights, np.zeros(len(known)))
        doubted = possible_gains(scores, weights, noise(weights))
        return Outlook(exact, noise(exact.corners), doubted)

    def next_members(self, found: Found, number: int, size: int) -> list[Individual]:
        """Return `size` untrained members of a round: the open corners, then those that learn on."""
        outlook, first = self.outlook(found.living), len(found.lineage)
        corners = np.zeros((0, 1)) if outlook is None else outlook.open[:size]
        chosen = [self._at(found.living, row, first + place, number) for place, row in enumerate(corners)]
        for parent in self._least_trained(found.living)[: size - len(chosen)]:
            row = parent.objective_weights
            chosen.append(parent.child(first + len(chosen), number, "training", [parent.number], row))
        place = 0
        while len(chosen) < size:  # fewer members than places: their weights again, from another order of prompts
            row = found.living[place % len(found.living)].objective_weights
            chosen.append(Individual(first + len(chosen), number, "start", (), row))
            place += 1
        return chosen

    def _at(self, living: Sequence[Individual], weights: FloatArray, number: int, generation: int) -> Individual:
        """Return a new member for some weights."""
        if self.settings.reuse == "none":
            return Individual(number, generation, "start", (), weights)
        latest = self._least_trained(living)
        rows = np.asarray([each.objective_weights for each in latest])
        parent = latest[int(nearest(rows, weights[None])[0])]
        return parent.child(number, generation, "training", [parent.number], weights)

    def _least_trained(self, living: Sequence[Individual]) -> list[Individual]:
        """Return the members that nobody has learned on from for the same weights, the least trained first."""
        by_number = {each.number: each for each in living}

        def same(one: Individual, other: Individual) -> bool:
            return bool(np.array_equal(one.objective_weights, other.objective_weights))

        went_on = {
            parent for each in living for parent in each.parents
            if parent in by_number and same(by_number[parent], each)
        }  # fmt: skip

        def rounds_of(each: Individual) -> int:
            return 1 + sum(rounds_of(by_number[parent]) for parent in each.parents if parent in by_number)

        latest = [each for each in living if each.number not in went_on]
        return sorted(latest, key=lambda each: (rounds_of(each), each.number))
