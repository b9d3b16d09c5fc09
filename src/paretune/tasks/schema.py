"""The keys of a task file, and what is said when one breaks its rule."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, FiniteFloat, PositiveInt, Tag, ValidationError
from pydantic_core import ErrorDetails

from paretune.core.checks import did_you_mean
from paretune.core.errors import ConfigError, UnknownNameError
from paretune.tasks.strict_yaml import Place

Number = FiniteFloat
_STRICT = ConfigDict(extra="forbid", populate_by_name=False, protected_namespaces=())


class PromptKeys(BaseModel):
    """Where prompts come from."""

    model_config = _STRICT
    train: str
    development: str
    test: str
    column: str = "prompt"
    allow_overlap: bool = False  # True permits test prompts that training or selection also sees


class RewardModelKeys(BaseModel):
    """A sequence classifier as reward."""

    model_config = _STRICT
    model: str
    template: str = "{prompt}{completion}"
    transform: Literal["sigmoid", "identity"] = "sigmoid"


Reward = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[RewardModelKeys, Tag("<model>")],
    Discriminator(lambda value: "<model>" if isinstance(value, (Mapping, RewardModelKeys)) else "<text>"),
]


class ObjectiveKeys(BaseModel):
    """One objective."""

    model_config = _STRICT
    reward: Reward
    range: tuple[Number, Number] = (0.0, 1.0)
    pass_threshold: Number | None = Field(default=None, alias="pass")
    version: PositiveInt = 1


class TaskKeys(BaseModel):
    """A whole task file."""

    model_config = _STRICT
    name: str | None = None  # by default the name of its folder
    folder: str | None = None  # where relative paths and reward modules start; by default the file's folder
    model: str
    prompts: PromptKeys
    template: str = "{prompt}"
    max_prompt_tokens: PositiveInt = 256
    max_completion_tokens: PositiveInt = 64
    beta: Annotated[Number, Field(ge=0)] = 0.05
    objectives: dict[str, ObjectiveKeys]
    audit: dict[str, ObjectiveKeys] = Field(default_factory=dict)
    reference_point: list[Number] | None = None  # by default the lower end of every range


ADVICE: Final = {
    "model": "Write a model folder or a hub id.",
    "prompts": "Write prompts: {train: train.jsonl, development: dev.jsonl, test: test.jsonl}.",
    "train": "Name the file of training prompts.",
    "development": "Set some training prompts aside in a file of their own; methods choose among policies by it.",
    "test": "Set some prompts aside in a file of their own; only the report uses them.",
    "objectives": "Write at least one, such as brevity: {reward: brevity}.",
    "reward": "Write module:function, the name of a built-in objective, or {model: FOLDER}.",
    "range": "Write the lowest and the highest possible reward, [0, 1].",
    "reference_point": "List one number per objective.",
}
MISSING: Final = "must be given, got nothing."


def validate(data: Mapping[str, object], place: Place) -> TaskKeys:
    """Check the keys of a task file.

    Raises:
        UnknownNameError: If there is a key that a task file does not have.
        ConfigError: If a key is missing or a value is of another kind.
    """
    try:
        return TaskKeys.model_validate(dict(data))
    except ValidationError as error:
        # unknown keys first: the missing key is often the misspelt one
        details = sorted(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
        raise _explain(details[0], place) from None


def _explain(detail: ErrorDetails, place: Place) -> ConfigError:
    path = tuple(part for part in detail["loc"] if not str(part).startswith("<"))
    key = str(next((part for part in reversed(path) if isinstance(part, str)), ""))
    where = place.at(*path)
    if detail["type"] == "extra_forbidden":
        known = _known_keys(path[:-1])
        guess = did_you_mean(key, known) or " Remove it."
        return UnknownNameError(f"{where} must be one of the keys {', '.join(known)}, got '{key}'.{guess}")
    advice = ADVICE.get(key, "Correct it.")
    if detail["type"] == "missing":
        return ConfigError(f"{where} {MISSING} {advice}")
    if detail["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return ConfigError(f"{where} must hold keys and values, got {detail['input']!r}. {advice}")
    rule = re.sub(r"^Input should", "must", detail["msg"])
    rule = rule if rule.startswith("must") else f"must be valid ({rule})"
    return ConfigError(f"{where} {rule}, got {detail['input']!r}. {advice}")


def _known_keys(path: tuple[int | str, ...]) -> list[str]:
    kinds: dict[int, type[BaseModel]] = {0: TaskKeys, 1: PromptKeys, 2: ObjectiveKeys, 3: RewardModelKeys}
    return sorted(item.alias or name for name, item in kinds[len(path)].model_fields.items())
