"""What is run on finished policies and on base models, one file each. What they leave are tables, charged to nobody.

A metric, or a study, names a measurement of a user's own as `module:Class`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError
from paretune.core.imports import import_name
from paretune.core.user_code import loaded_code

if TYPE_CHECKING:
    from paretune.benchmark.planned import PlannedCell
    from paretune.benchmark.study import Study
    from paretune.core.protocols import Table

MEASUREMENTS = {
    "evaluation": "paretune.benchmark.measurements.evaluation:Evaluation",
    "reference": "paretune.benchmark.measurements.reference:Reference",
    "truth": "paretune.benchmark.measurements.truth:Truth",
    "outcomes": "paretune.benchmark.measurements.outcomes:Outcomes",
    "timing": "paretune.benchmark.measurements.timing:Timing",
}
TRIAL = "paretune.benchmark.tuning:TrialScore"  # what measures the trials of a sweep, and nothing else does
PARTS = ("name", "version", "alone", "jobs", "run")


def source_of(name: str) -> str:
    """Return where a measurement is found, `module:Class`.

    Raises:
        UnknownNameError: If it is no `module:Class`, and not one of `MEASUREMENTS`.
    """
    return name if ":" in name else MEASUREMENTS[check_choice("measurement", name, MEASUREMENTS)]


def load_measurement(name: str) -> Any:
    """Return a measurement by its name, or a user's own by `module:Class`.

    Raises:
        UnknownNameError: If the name is not one of `MEASUREMENTS`.
        ConfigError: If it cannot be imported, or is no measurement.
    """
    return import_name("measurement", source_of(name), PARTS)()


def users_measurement(name: str) -> str:
    """Check the name of a measurement that a study or a metric gives, and return it.

    Raises:
        UnknownNameError: If it is no `module:Class`, and not one of `MEASUREMENTS`.
        ConfigError: If it cannot be imported or is no measurement, or what it calls itself can be no folder of its own.
    """
    own = load_measurement(name).name
    if ":" in name and (not str(own).isidentifier() or own in (*MEASUREMENTS, "evaluations")):
        raise ConfigError(
            f"name of measurement '{name}' must be letters, digits and '_', and none of {', '.join(MEASUREMENTS)}, got "
            f"{own!r}. Rename it."
        )
    return name


def wanted_tables(study: Study, cells: Sequence[PlannedCell]) -> list[Table]:
    """Ask the measurements of a study what there is to measure on its cells, or on the trials of its sweep.

    Args:
        study: The study.
        cells: Its cells.

    Raises:
        ConfigError: If a measurement cannot be used.
    """
    of_trials = any(cell.point is not None for cell in cells)
    tables: list[Table] = []
    for name in (TRIAL,) if of_trials else (*MEASUREMENTS, *study.measurements):
        measurement, code = load_measurement(name), loaded_code([source_of(name)])
        identity = {"measurement": measurement.name, "version": measurement.version, **({"code": code} if code else {})}
        tables += [
            replace(table, measurement=name, depends_on={**table.depends_on, **identity})
            for table in measurement.jobs(study, cells)
        ]
    return tables
