"""Values that settings give for single objectives, by name: thresholds, ideal points. One rule for their units."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from paretune.core.checks import check_choice, did_you_mean
from paretune.core.errors import ConfigError
from paretune.core.task import Task

UNITS = ("reward", "share")  # of rewards themselves, or from 0, the lowest reward, to 1, the highest


def check_values(name: str, values: Mapping[str, float], unit: str) -> None:
    """Check values by objective as far as no task is needed.

    Raises:
        UnknownNameError: If the unit is none of `UNITS`.
        ConfigError: If a value is not finite, or a share is not from 0 to 1.
    """
    check_choice("unit", unit, UNITS)
    for objective, value in values.items():
        if not np.isfinite(value) or (unit == "share" and not 0 <= value <= 1):
            rule = "from 0 to 1 where unit is share" if unit == "share" else "finite"
            raise ConfigError(f"{name}.{objective} must be {rule}, got {value}. Correct it.")


def values_of(name: str, values: Mapping[str, float], unit: str, task: Task) -> list[float | None]:
    """Return the value of each objective of a task in units of its reward, None where none is given.

    Args:
        name: Of the setting, for messages.
        values: By objective.
        unit: `reward`, or `share` of the way from its lowest to its highest reward.
        task: Its objectives.

    Raises:
        ConfigError: If an objective is not the task's, or a value lies outside of its rewards.
    """
    names = list(task.objective_names)
    for objective, value in values.items():
        if objective not in names:
            raise ConfigError(
                f"{name} must name objectives of the task ({', '.join(names)}), got '{objective}'."
                f"{did_you_mean(objective, names) or ' Correct it.'}"
            )
        low, high = task.objectives[names.index(objective)].range
        if unit == "reward" and not low <= value <= high:
            raise ConfigError(
                f"{name}.{objective} must lie in its range from {low:g} to {high:g}, got {value}. Correct it, or write "
                "unit: share for a share of the range."
            )
    found: list[float | None] = []
    for each in task.objectives:
        given, (low, high) = values.get(each.name), each.range
        found.append(given if given is None or unit == "reward" else low + given * (high - low))
    return found
