"""Trackio; its own environment variables say where to, by default a local file."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import copy_context
from functools import partial
from typing import Any

from paretune.tracking import TrackedRun, needed


class TrackioTracker:
    """Writes runs of a project."""

    def __init__(self) -> None:
        self._trackio: Any = needed("trackio", "trackio")

    def start(self, run: TrackedRun) -> None:
        """Begin a run, or go on with the one of its name."""
        init = partial(
            self._trackio.init, project=run.project, name=run.name, config=dict(run.config), resume="allow",
            embed=False, auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip
        self._run = copy_context().run(init)  # in the context of another run it would finish that one

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the numbers of an update."""
        self._run.log(dict(metrics), step=step)

    def finish(self) -> None:
        """Wait until all is written."""
        self._run.finish()
