"""Planned lengths: how far a run is, which lengths it reaches before its next whole update, and what they are made of.

A run of N completions is the prefix of a longer one. Whole updates are made once and stay. A length that ends inside
an update is reached by the update that a run of just that length would end with, made on a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from paretune.core.errors import BudgetError


@dataclass(frozen=True)
class Update:
    """What one update is made of.

    Attributes:
        measured: Completions of development prompts before it.
        size: Completions it learns from; 0 where a length is reached without a further update.
    """

    measured: int
    size: int


@dataclass
class Lengths:
    """Where one run stands between its planned lengths.

    Attributes:
        planned: Lengths in completions at which it is handed over, ascending.
        step: Completions of a whole update.
        group: Completions per prompt.
        measured: Completions of development prompts wanted before an update, by its number.
        updates: Whole updates made.
        handed_over: Lengths that have been handed over.

    Raises:
        BudgetError: If a length is below one group.
    """

    planned: Sequence[int]
    step: int
    group: int
    measured: Callable[[int], int] = lambda update: 0
    updates: int = 0
    handed_over: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        if not self.planned or min(self.planned) < self.group:
            raise BudgetError(
                f"completions must be at least one group of {self.group} for each expert, got "
                f"{min(self.planned, default=0)}. Raise the budget, or train fewer experts."
            )

    @property
    def measured_before(self) -> int:
        """Completions of development prompts made before the coming update's own."""
        return sum(self.measured(update) for update in range(self.updates))

    @property
    def done(self) -> int:
        """Completions made in whole updates and before them."""
        return self.updates * self.step + self.measured_before

    def whole(self) -> Update | None:
        """Return the coming whole update, or None where no planned length has room for it."""
        update = Update(self.measured(self.updates), self.step)
        room = max(self.planned) - self.done
        needed = update.measured + update.size
        unreached = not self.handed_over.issuperset(self.planned)
        return update if room >= needed and unreached else None

    def before_whole(self) -> list[tuple[int, Update]]:
        """Return the lengths that end before the next whole update does, each with the update it ends with.

        Where no group of completions would be left to learn from, development prompts get only what a whole update
        leaves of the room: nothing, unless more are wanted of them than an update has.
        """
        wanted, done = self.measured(self.updates), self.done
        found = []
        for length in sorted(set(self.planned) - self.handed_over):
            room = length - done
            if room < wanted + self.step:
                spare = max(0, room - self.step) // self.group * self.group
                measured = wanted if room >= wanted + self.group else spare
                found.append((length, Update(measured, max(0, room - measured) // self.group * self.group)))
        return found

    def near(self) -> bool:
        """Whether a planned length is reached before or with the next whole update."""
        reach = self.done + self.measured(self.updates) + self.step
        return any(length <= reach for length in set(self.planned) - self.handed_over)
