"""The preferences that a study wants: a grid with its centre, or points that it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paretune.benchmark.study_file import GridOrPoints, StudyKeys
from paretune.core.errors import ConfigError, PreferenceError
from paretune.core.limits import MAX_PREFERENCES
from paretune.core.preferences import FloatArray, Point, grid_preferences, grid_size, wanted_preferences
from paretune.core.task import Task
from paretune.tasks.strict_yaml import KeyPath, Place

GRID = 2  # divisions where a study names neither: corners, midpoints and centre


@dataclass(frozen=True)
class Wanted:
    """Preferences that methods are given.

    Attributes:
        grid: Divisions of their grid; None where they are named.
        points: Each as the study names it; empty where they are a grid.
    """

    grid: int | None = None
    points: tuple[Point, ...] = ()

    def of(self, task: Task) -> FloatArray:
        """Return them for the objectives of a task, `[M, K]`.

        Raises:
            PreferenceError: If a point is no preference of this task.
        """
        if self.grid is None:
            return wanted_preferences(list(self.points), task.objective_names)
        return grid_preferences(len(task.objectives), self.grid)

    def plain(self) -> dict[str, object]:
        """Return plain data, as a study file has it."""
        if self.grid is not None:
            return {"grid": self.grid}
        return {"points": [dict(each) if isinstance(each, Mapping) else list(each) for each in self.points]}

    def lost(self, before: Mapping[str, Any]) -> str:
        """Say what these preferences lack of those that `plain` wrote before; empty where they lack nothing."""
        if "grid" in before and self.grid is not None:
            fewer = self.grid < before["grid"]
            return f"preferences.grid {before['grid']}, more than the {self.grid} of the study" if fewer else ""
        if ("grid" in before) != (self.grid is not None):
            return f"preferences.{'grid' if 'grid' in before else 'points'}, which the study does not have"
        gone = [each for each in before["points"] if each not in self.points]
        return f"results of preference {gone[0]}, which the study no longer names" if gone else ""


def wanted_of(keys: GridOrPoints) -> Wanted:
    """Return what the keys of a study file name."""
    return Wanted(points=tuple(keys.points)) if keys.points is not None else Wanted(keys.grid or GRID)


def check_wanted(file: StudyKeys, tasks: Sequence[Task], place: Place) -> None:
    """Refuse points that are no preferences of a task, and a grid of more than anyone waits for, before it is made.

    Raises:
        ConfigError: If a grid has too many points.
        PreferenceError: If a point cannot be a preference.
    """
    asked: dict[KeyPath, Wanted] = {("preferences",): wanted_of(file.preferences)}
    if file.tune is not None and file.tune.preferences is not None:
        asked["tune", "preferences"] = wanted_of(file.tune.preferences)
    for path, wanted in asked.items():
        for task in tasks:
            if wanted.grid is None:
                try:
                    wanted.of(task)
                except PreferenceError as error:
                    raise PreferenceError(f"{place.at(*path, 'points')}: task '{task.name}': {error}") from error
                continue
            grid, count = wanted.grid, len(task.objectives)
            points = grid_size(count, grid) if grid <= MAX_PREFERENCES else grid
            if points > MAX_PREFERENCES:
                raise ConfigError(
                    f"{place.at(*path, 'grid')} must make at most {MAX_PREFERENCES:,} preferences of {count} "
                    f"objectives, got {grid}, which makes {points:,} or more. Lower it."
                )
