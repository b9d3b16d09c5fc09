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
        greedy: Completions that are a baseline, and not learned from.
    """

    measured: int
    size: int
    greedy: int = 0


@dataclass
class Lengths:
    """Where one run stands between its planned lengths.

    Attributes:
        planned: Lengths in completions at which it is handed over, ascending.
        step: Completions that a whole update learns from.
        group: Completions per prompt.
        measured: Completions of development prompts wanted before an update, by its number.
        updates: Whole updates made.
        handed_over: Lengths that have been handed over.
        greedy: Completions of each prompt beside those, for a baseline: charged like them.

    Raises:
        BudgetError: If a length is below one group.
    """

    planned: Sequence[int]
    step: int
    group: int
    measured: Callable[[int], int] = lambda update: 0
    updates: int = 0
    handed_over: set[int] = field(default_factory=set)
    greedy: int = 0

    def __post_init__(self) -> None:
        if not self.planned or min(self.planned) < self.group + self.greedy:
            raise BudgetError(
                f"completions must be at least one group of {self.group + self.greedy} for each expert, got "
                f"{min(self.planned, default=0)}. Raise the budget, or train fewer experts."
            )

    @property
    def measured_before(self) -> int:
        """Completions of development prompts made before the coming update's own."""
        return sum(self.measured(update) for update in range(self.updates))

    @property
    def done(self) -> int:
        """Completions made in whole updates and before them."""
        return self.updates * self._spent(self.step) + self.measured_before

    def _spent(self, size: int) -> int:
        """Return the completions of an update that learns from `size`."""
        return size + size // self.group * self.greedy

    def _update(self, measured: int, room: int) -> Update:
        """Return the update of the most whole groups for which there is room, measured completions apart."""
        groups = max(0, room) // (self.group + self.greedy)
        return Update(measured, groups * self.group, groups * self.greedy)

    def whole(self) -> Update | None:
        """Return the coming whole update, or None where no planned length has room for it."""
        update = self._update(self.measured(self.updates), self._spent(self.step))
        room = max(self.planned) - self.done
        needed = update.measured + update.size + update.greedy
        unreached = not self.handed_over.issuperset(self.planned)
        return update if room >= needed and unreached else None

    def before_whole(self) -> list[tuple[int, Update]]:
        """Return the lengths that end before the next whole update does, each with the update it ends with.

        Where no group of completions would be left to learn from, development prompts get only what a whole update
        leaves of the room: nothing, unless more are wanted of them than an update has.
        """
        wanted, done, step = self.measured(self.updates), self.done, self._spent(self.step)
        group = self.group + self.greedy
        found = []
        for length in sorted(set(self.planned) - self.handed_over):
            room = length - done
            if room < wanted + step:
                spare = max(0, room - step) // group * group
                measured = wanted if room >= wanted + group else spare
                found.append((length, self._update(measured, room - measured)))
        return found

    def near(self) -> bool:
        """Whether a planned length is reached before or with the next whole update."""
        reach = self.done + self.measured(self.updates) + self._spent(self.step)
        return any(length <= reach for length in set(self.planned) - self.handed_over)
