"""Weights & Biases; its own environment variables say where to, and whether online."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paretune.tracking import TrackedRun, needed

LOGIN_SECONDS = 30  # that it may wait for somebody to log in


class WandbTracker:
    """Sends numbers and settings, beside what W&B itself notes of the machine: no console, code or revision."""

    def __init__(self) -> None:
        self._wandb: Any = needed("wandb", "wandb")

    def start(self, run: TrackedRun) -> None:
        """Begin a run, or go on with it by its id."""
        settings = self._wandb.Settings(
            console="off", disable_code=True, disable_git=True, login_timeout=LOGIN_SECONDS
        )  # what a reward prints, or a revision's address holds, is nobody else's
        self._run = self._wandb.init(
            project=run.project, name=run.name, id=run.key, config=dict(run.config), resume="allow",
            reinit="create_new", settings=settings,
        )  # fmt: skip

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send the numbers of an update."""
        self._run.log(dict(metrics), step=step)

    def finish(self) -> None:
        """Wait until all is sent."""
        self._run.finish()
