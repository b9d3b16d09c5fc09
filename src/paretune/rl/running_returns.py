"""Estimates of what a policy earns while it changes: an exponential average that keeps what is missing as it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray


class RunningReturns:
    """An exponential average of returns `[K]`, without the bias of its start.

    An objective whose returns are missing keeps its estimate. One that never had any stands at `unknown`.
    """

    def __init__(self, unknown: FloatArray, memory: float) -> None:
        """Start with nothing known.

        Args:
            unknown: Estimates while nothing is known, `[K]`.
            memory: Share of the estimate that an update leaves, from 0 to below 1.

        Raises:
            ConfigError: If the memory is out of its range.
        """
        check_memory(memory)
        self.unknown, self.memory = np.asarray(unknown, np.float64), memory
        self.sums, self.counts = np.zeros((2, len(self.unknown)))

    def add(self, returns: FloatArray) -> FloatArray:
        """Take in the returns of an update `[K]`, NaN where missing, and return the estimates."""
        came = ~np.isnan(returns)
        self.sums = np.where(came, self.memory * self.sums + (1 - self.memory) * returns, self.sums)
        self.counts = np.where(came, self.memory * self.counts + 1 - self.memory, self.counts)
        return self.estimates

    @property
    def estimates(self) -> FloatArray:
        """What is expected of each objective, `[K]`."""
        known = self.counts > 0
        return np.where(known, self.sums / np.where(known, self.counts, 1.0), self.unknown)

    def state(self) -> dict[str, object]:
        """Return it as plain data."""
        return {"sums": self.sums.tolist(), "counts": self.counts.tolist()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.sums, self.counts = np.asarray(state["sums"], np.float64), np.asarray(state["counts"], np.float64)


def check_memory(memory: float) -> None:
    """Check the share of an estimate that an update leaves.

    Raises:
        ConfigError: If it is not from 0 to below 1.
    """
    if not 0 <= memory < 1:
        raise ConfigError(f"memory must be at least 0 and below 1, got {memory}. Try 0.8.")
