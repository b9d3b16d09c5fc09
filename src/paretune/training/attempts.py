"""An attempt at some stages: when it began, what it runs on, and how busy that machine is meanwhile."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from statistics import fmean

from paretune.executors.environment import environment


class Attempt:
    """One process that trains some stages, from its start to their seals.

    Attributes:
        began: When, by which attempts at a stage are told apart.
    """

    def __init__(self, model: str, threads: int) -> None:
        """Look at the machine for the first time.

        Args:
            model: Base model of the task, as it names it.
            threads: Threads the job may use.
        """
        self.began = datetime.now(UTC).isoformat(timespec="microseconds")
        self._model, self._threads = model, threads
        self._loads: list[float] = []
        self.look()

    def look(self) -> None:
        """Look at how busy the machine is."""
        try:
            self._loads.append(os.getloadavg()[0])
        except OSError:  # a system that does not tell
            return

    def plain(self) -> Mapping[str, object]:
        """Return what is known by now, plain data; `load` is the mean of the load averages, None where none is told."""
        torch, loading = sys.modules.get("torch"), sys.modules.get("paretune.models.loading")
        on_gpu = torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized()
        return {
            **environment(self._threads if torch is None else torch.get_num_threads()),
            "device": str(torch.cuda.get_device_name()) if torch is not None and on_gpu else "cpu",
            "dtypes": [] if loading is None else loading.loaded_dtypes(self._model),
            "load": fmean(self._loads) if self._loads else None,
            "machine_cores": os.cpu_count(),
        }
