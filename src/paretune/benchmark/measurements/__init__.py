"""What is run on finished policies and on base models, one file each. What they leave are tables, charged to nobody.

Those in `MEASUREMENTS` are made in every study. Those in `ON_REQUEST` train or sample for longer: a study names them
under `measurements`. A metric, or a study, names a measurement of a user's own as `module:Class`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from paretune.core.checks import check_choice
from paretune.core.digests import canonical_json
from paretune.core.errors import ConfigError
from paretune.core.imports import import_name
from paretune.core.protocols import Table
from paretune.core.user_calls import shown

MEASUREMENTS = {
    "evaluation": "paretune.benchmark.measurements.evaluation:Evaluation",
    "reference": "paretune.benchmark.measurements.reference:Reference",
    "truth": "paretune.benchmark.measurements.truth:Truth",
    "outcomes": "paretune.benchmark.measurements.outcomes:Outcomes",
    "relations": "paretune.benchmark.measurements.relations:Relations",
    "timing": "paretune.benchmark.measurements.timing:Timing",
}
ON_REQUEST: dict[str, str] = {
    "adaptation": "paretune.benchmark.measurements.adaptation:Adaptation",
    "scaling": "paretune.benchmark.measurements.scaling:Scaling",
    "attribution": "paretune.benchmark.measurements.attribution:Attribution",
}  # each writes `<name>.json` into its table, see `CellRecord.measured`
TRIAL = "paretune.benchmark.tuning:TrialScore"  # what measures the trials of a sweep, and nothing else does
PLACES = ("runs", "references", "truths", "timing")  # folders of a study that a user's tables may lie below
PARTS = ("name", "version", "alone", "jobs", "run")


def source_of(name: str) -> str:
    """Return where a measurement is found, `module:Class`.

    Raises:
        UnknownNameError: If it is no `module:Class`, and not one of `MEASUREMENTS` and `ON_REQUEST`.
    """
    known = {**MEASUREMENTS, **ON_REQUEST}
    return name if ":" in name else known[check_choice("measurement", name, known)]


def load_measurement(name: str) -> Any:
    """Return a measurement by its name, or a user's own by `module:Class`.

    Raises:
        UnknownNameError: If the name is not one of `MEASUREMENTS` and `ON_REQUEST`.
        ConfigError: If it cannot be imported, or is no measurement.
    """
    return import_name("measurement", source_of(name), PARTS)()


def users_measurement(name: str) -> str:
    """Check the name of a measurement that a study or a metric gives, and return it.

    Raises:
        UnknownNameError: If it is no `module:Class`, and not one of `MEASUREMENTS` and `ON_REQUEST`.
        ConfigError: If it cannot be imported or is no measurement, or what it calls itself can be no folder of its own.
    """
    own = load_measurement(name).name
    if ":" in name and (not str(own).isidentifier() or own in (*MEASUREMENTS, *ON_REQUEST, "evaluations")):
        known = ", ".join((*MEASUREMENTS, *ON_REQUEST))
        raise ConfigError(
            f"name of measurement '{name}' must be letters, digits and '_', and none of {known}, got {own!r}. Rename "
            "it."
        )
    return name


def check_tables(source: str, name: str, tables: Any, cells: Sequence[Any]) -> None:
    """Hold the tables that a user's measurement asks for to its contract.

    Args:
        source: Where the measurement is found.
        name: What it calls itself.
        tables: What its `jobs` returned.
        cells: Of the study.

    Raises:
        ConfigError: If one is no table, lies where no table of this measurement may, is of a cell or an instance that
            is none, depends on what is no plain data, or is asked for twice.
    """
    known, instances = {cell.name for cell in cells}, {(cell.task.name, cell.seed) for cell in cells}
    seen: set[str] = set()
    if not isinstance(tables, (list, tuple)) or not all(isinstance(table, Table) for table in tables):
        raise ConfigError(f"jobs of '{source}' must return a list of Table, got {shown(tables)}. Correct it.")
    for table in tables:
        parts = PurePosixPath(str(table.folder)).parts
        own = len(parts) == 3 and parts[0] in PLACES and ".." not in parts and parts[2] == name
        if not own or table.folder in seen or (parts[0] == "runs" and parts[1] not in known):
            raise ConfigError(
                f"folder of each table of '{source}' must be its own, runs/<cell>/{name} or, for what is of no cell, "
                f"references/<any name>/{name}, got {shown(table.folder)}{' again' * (table.folder in seen)}. Correct "
                "its jobs."
            )
        seen.add(table.folder)
        if (table.task, table.seed) not in instances or not known.issuperset(table.cells) or table.stages is not None:
            raise ConfigError(
                f"table '{table.folder}' of '{source}' must name task, seed and cells of the study, and no stages, got "
                f"{shown((table.task, table.seed, table.cells, table.stages))}. Correct its jobs."
            )
        try:
            canonical_json(table.depends_on)
        except ConfigError as error:
            raise ConfigError(f"depends_on of table '{table.folder}' of '{source}': {error}") from error
