"""Trackers: what shows curves of training elsewhere, beside the log that every stage writes."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError, MissingDependencyError
from paretune.core.imports import import_name
from paretune.core.user_calls import called

TRACKERS = {
    "mlflow": "paretune.tracking.mlflow:MlflowTracker",
    "tensorboard": "paretune.tracking.tensorboard:TensorBoardTracker",
    "trackio": "paretune.tracking.trackio:TrackioTracker",
    "wandb": "paretune.tracking.wandb:WandbTracker",
}
PARTS = ("start", "log", "finish")

Plain = str | int | float | bool | None


@dataclass(frozen=True)
class TrackedRun:
    """One curve: the training of one policy, gate or population, whatever the length it is trained to.

    Attributes:
        key: Its digest, the same whenever it is gone on with.
        name: For people.
        project: What it belongs to: the name of the study, or of the task.
        config: What it is, plain data in one level.
        folder: Where a tracker that keeps files of its own puts them.
        objectives: Names of the K objectives.
        beta: KL coefficient of the task.
    """

    key: str
    name: str
    project: str
    config: Mapping[str, Plain]
    folder: Path
    objectives: tuple[str, ...]
    beta: float


class Tracker(Protocol):
    """Takes the curve of one run. There is an object for each run, and several runs at once.

    It is made without arguments, once before anything is trained too, so that a missing package is known by then.
    """

    def start(self, run: TrackedRun) -> None:
        """Begin a run, or go on with the one of that key: a later call trains it further."""
        ...

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the numbers of update `step`; steps rise, and none comes twice."""
        ...

    def finish(self) -> None:
        """Write out what is left."""
        ...


def load_tracker(name: str) -> Any:
    """Return a tracker's class by its name here, or a user's own by `module:Class`.

    Raises:
        UnknownNameError: If the name is not one of `TRACKERS`.
        ConfigError: If `module:Class` cannot be imported or is no tracker.
    """
    return import_name("tracker", name if ":" in name else TRACKERS[check_choice("tracker", name, TRACKERS)], PARTS)


def check_trackers(names: Sequence[str]) -> tuple[str, ...]:
    """Return trackers, each once, all of which can be made: to be asked before anything is trained.

    Raises:
        ConfigError: If one is unknown, is none, or cannot be made.
        MissingDependencyError: If the package of one is not installed.
    """
    if isinstance(names, str):
        raise ConfigError(f"trackers must be a list of names, got '{names}'. Write ['{names}'].")
    distinct = tuple(dict.fromkeys(names))
    for name in distinct:
        kind = load_tracker(name)
        with called(f"tracker '{name}'", ConfigError):
            kind()
    return distinct


def needed(module: str, extra: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: Its name.
        extra: The extra of this package that installs it.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"tracker {extra} must have its package installed, got {error}. Run `pip install 'paretune[{extra}]'`."
        ) from error
