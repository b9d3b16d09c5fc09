"""The keys of a study file, and what is said when one breaks its rule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from paretune.core.errors import ConfigError
from paretune.core.limits import (
    MAX_BUDGETS,
    MAX_CELLS,
    MAX_COMPLETIONS,
    MAX_METHODS,
    MAX_NAME,
    MAX_PREFERENCES,
    MAX_SAMPLES,
    MAX_SEED,
    MAX_SEEDS,
    MAX_WORKERS,
)
from paretune.core.user_code import REFERENCE
from paretune.tasks.explaining import explain
from paretune.tasks.strict_yaml import KeyPath, Place


class FilePart(BaseModel):
    """A part of a study file; other keys than its own are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _one_or_many(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _seeds(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= MAX_SEEDS:
            raise ValueError(f"be at least 1 and at most {MAX_SEEDS:,}, or a list of seeds")
        return list(range(value))
    return value


Natural = Annotated[int, Field(ge=1)]
Reference = Annotated[str, Field(pattern=f"^{REFERENCE.pattern}$")]
Measured = Annotated[str, Field(pattern=f"^({REFERENCE.pattern}|[a-z_]+)$")]
Seeds = Annotated[
    list[Annotated[int, Field(ge=0, le=MAX_SEED)]],
    BeforeValidator(_seeds),
    Field(min_length=1, max_length=MAX_SEEDS),
]
Name = Annotated[str, Field(pattern=rf"^[A-Za-z0-9][A-Za-z0-9_.-]{{0,{MAX_NAME - 1}}}$")]
Label = Annotated[str, Field(pattern=rf"^[^\x00-\x1f\x7f-\x9f]{{1,{MAX_NAME}}}$")]
Completions = Annotated[int, Field(ge=1, le=MAX_COMPLETIONS)]

_Workers = Annotated[
    Annotated[Literal["auto"], Tag("<text>")] | Annotated[int, Field(ge=1, le=MAX_WORKERS), Tag("<number>")],
    Discriminator(lambda value: "<text>" if isinstance(value, str) else "<number>"),
]


def _points(value: object) -> object:
    if not isinstance(value, list) or not all(isinstance(each, (list, dict)) for each in value):
        raise ValueError("be a list of preferences, each a list of weights or a mapping from objectives to weights")
    return value


Points = Annotated[list[Any], BeforeValidator(_points), Field(min_length=1, max_length=MAX_PREFERENCES)]


class BudgetKeys(FilePart):
    """What a cell may use."""

    completions: Annotated[
        list[Completions], BeforeValidator(_one_or_many), Field(min_length=1, max_length=MAX_BUDGETS)
    ]


class GridOrPoints(FilePart):
    """Which preferences methods are given: a grid's or those named."""

    grid: Natural | None = None
    points: Points | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.grid is not None and self.points is not None:
            raise ValueError("have either grid or points")
        return self


class TunePreferencesKeys(GridOrPoints):
    """Which preferences methods are given in a sweep, where these are not the study's."""

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.grid is None and self.points is None:
            raise ValueError("have grid or points; leave preferences out for those of the study")
        return self


class PreferencesKeys(GridOrPoints):
    """Which preferences methods are given, and which are evaluated."""

    unseen: Annotated[int, Field(ge=0, le=MAX_PREFERENCES)] = 1


class EvaluationKeys(FilePart):
    """How policies are evaluated."""

    samples: Annotated[int, Field(ge=1, le=MAX_SAMPLES)] = 1
    prompts: Natural | None = None
    kl_matched: bool = False


class PartKeys(FilePart):
    """Which cells a named part has."""

    tasks: Annotated[list[str], Field(min_length=1)] | None = None
    seeds: Seeds | None = None


class TuneKeys(BaseModel):
    """The sweep; every other key is a setting of the methods."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    instances: Natural = 2
    completions: Completions | None = None
    preferences: TunePreferencesKeys | None = None


class StudyKeys(FilePart):
    """A whole study file."""

    name: Name | None = None
    tasks: Annotated[list[Any], Field(min_length=1)]
    methods: Annotated[dict[Label, Any], Field(min_length=1, max_length=MAX_METHODS)]
    budget: BudgetKeys
    seeds: Seeds = [0, 1, 2]
    preferences: PreferencesKeys = PreferencesKeys()
    evaluation: EvaluationKeys = EvaluationKeys()
    tune: TuneKeys | None = None
    metrics: list[Reference] = []
    measurements: list[Measured] = []
    trackers: list[Measured] = []
    workers: _Workers = "auto"
    parts: dict[Name, PartKeys] = {}


RULES = {
    "metrics": "be names of your own, each 'module:Class'",
    "measurements": "be names of measurements, or of your own, each 'module:Class'",
    "trackers": "be names of trackers, or of your own, each 'module:Class'",
    "workers": f"be 'auto' or a whole number from 1 to {MAX_WORKERS:,}",
    "name": f"be at most {MAX_NAME} letters, digits, '.', '_' and '-', a letter or digit first",
    "[key]": f"be a name of at most {MAX_NAME} characters, none of which controls a terminal",
}
PARTS: dict[KeyPath, type[FilePart]] = {
    (): StudyKeys,
    ("budget",): BudgetKeys,
    ("preferences",): PreferencesKeys,
    ("evaluation",): EvaluationKeys,
    ("tune", "preferences"): TunePreferencesKeys,
}


def validate(data: Mapping[str, object], place: Place) -> StudyKeys:
    """Check the keys of a study file.

    Raises:
        ConfigError: If a key is unknown or missing, a value is of another kind, or there would be too many cells.
    """
    try:
        keys = StudyKeys.model_validate(dict(data))
    except ValidationError as error:
        raise explain(error, place, _known_keys, RULES) from None
    pairs = len(keys.tasks) * len(keys.methods)
    _check_cells(place.at("methods"), "cells", pairs * len(keys.budget.completions) * len(keys.seeds))
    if keys.tune is not None:
        choices = math.prod(len(each) for each in (keys.tune.model_extra or {}).values() if isinstance(each, list))
        tuned = len(keys.tasks) * len(keys.methods.keys() - {"base"})
        _check_cells(place.at("tune"), "trials", tuned * choices * keys.tune.instances)
    return keys


def _check_cells(where: str, noun: str, count: int) -> None:
    if count > MAX_CELLS:
        raise ConfigError(
            f"{where} must make at most {MAX_CELLS:,} {noun} with the tasks, budgets and seeds, got {count:,}. Split "
            "the study."
        )


def _known_keys(path: KeyPath) -> list[str]:
    part = PartKeys if path[:1] == ("parts",) and len(path) == 2 else PARTS[path]
    return list(part.model_fields)
