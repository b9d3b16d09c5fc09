"""The keys of a study file, and what is said when one breaks its rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError

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
        if value < 1:
            raise ValueError("be at least 1 or a list of seeds")
        return list(range(value))
    return value


Natural = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Reference = Annotated[str, Field(pattern=f"^{REFERENCE.pattern}$")]


_Workers = Annotated[
    Annotated[Literal["auto"], Tag("<text>")] | Annotated[Natural, Tag("<number>")],
    Discriminator(lambda value: "<text>" if isinstance(value, str) else "<number>"),
]


class BudgetKeys(FilePart):
    """What a cell may use."""

    completions: Annotated[list[Natural], BeforeValidator(_one_or_many), Field(min_length=1)]


class PreferencesKeys(FilePart):
    """Which preferences methods are given, and which are evaluated."""

    grid: Natural = 2
    unseen: Annotated[int, Field(ge=0)] = 1


class EvaluationKeys(FilePart):
    """How policies are evaluated."""

    samples: Natural = 1
    prompts: Natural | None = None
    kl_matched: bool = False


class PartKeys(FilePart):
    """Which cells a named part has."""

    tasks: Annotated[list[str], Field(min_length=1)] | None = None
    seeds: Annotated[list[Seed], BeforeValidator(_seeds), Field(min_length=1)] | None = None


class TunePreferencesKeys(FilePart):
    """Which preferences a sweep is scored on."""

    grid: Natural


class TuneKeys(BaseModel):
    """The sweep; every other key is a setting of the methods."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    instances: Natural = 2
    completions: Natural | None = None
    preferences: TunePreferencesKeys | None = None


class StudyKeys(FilePart):
    """A whole study file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] | None = None
    tasks: Annotated[list[Any], Field(min_length=1)]
    methods: Annotated[dict[str, Any], Field(min_length=1)]
    budget: BudgetKeys
    seeds: Annotated[list[Seed], BeforeValidator(_seeds), Field(min_length=1)] = [0, 1, 2]
    preferences: PreferencesKeys = PreferencesKeys()
    evaluation: EvaluationKeys = EvaluationKeys()
    tune: TuneKeys | None = None
    metrics: list[Reference] = []
    measurements: list[Reference] = []
    workers: _Workers = "auto"
    parts: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")], PartKeys] = {}


RULES = {
    "metrics": "be names of your own, each 'module:Class'",
    "measurements": "be names of your own, each 'module:Class'",
    "workers": "be 'auto' or a whole number from 1",
    "name": "be letters, digits, '.', '_' and '-', a letter or digit first",
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
        ConfigError: If a key is unknown or missing, or a value is of another kind.
    """
    try:
        return StudyKeys.model_validate(dict(data))
    except ValidationError as error:
        raise explain(error, place, _known_keys, RULES) from None


def _known_keys(path: KeyPath) -> list[str]:
    part = PartKeys if path[:1] == ("parts",) and len(path) == 2 else PARTS[path]
    return list(part.model_fields)
