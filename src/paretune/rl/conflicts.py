"""How many steps of each member turned against an objective, where its gradient is known anyway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paretune.core.preferences import FloatArray


class Conflicts:
    """Counts steps that turned against an objective of their member's preference."""

    def __init__(self, preferences: FloatArray) -> None:
        """Start from nothing, for members trained for preferences `[E, K]`."""
        self.wanted = preferences > 0
        self.steps = np.zeros(len(preferences), dtype=np.int64)
        self.against = np.zeros(preferences.shape, dtype=np.int64)

    def add(self, members: Sequence[int], against: NDArray[np.bool_]) -> None:
        """Add a step of some members, and which objectives it turned against, `[R, K]`."""
        self.steps[list(members)] += 1
        self.against[list(members)] += against

    def shares(self, member: int) -> list[float | None]:
        """Return the share of a member's steps that turned against each objective; see `shares_of`."""
        return self.shares_of(member, self.against[member] / max(1, int(self.steps[member])))

    def shares_of(self, member: int, shares: FloatArray) -> list[float | None]:
        """Return shares `[K]` as plain data, None where the preference leaves an objective out."""
        return [float(share) if wanted else None for share, wanted in zip(shares, self.wanted[member], strict=True)]

    def state(self, member: int) -> dict[str, object]:
        """Return a member's counts as plain data."""
        return {"steps": int(self.steps[member]), "against": self.against[member].tolist()}

    def load(self, member: int, state: Mapping[str, Any]) -> None:
        """Take over `state`."""
        self.steps[member], self.against[member] = state["steps"], state["against"]
