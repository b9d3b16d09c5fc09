"""The keys of a task file, and what is said when one breaks its rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, FiniteFloat, PositiveInt, Tag, ValidationError

from paretune.core.limits import MAX_BETA, MAX_REWARD
from paretune.tasks.explaining import explain
from paretune.tasks.strict_yaml import KeyPath, Place

Number = Annotated[FiniteFloat, Field(ge=-MAX_REWARD, le=MAX_REWARD)]  # a reward, or a limit of rewards
_STRICT = ConfigDict(extra="forbid", strict=True, populate_by_name=False, protected_namespaces=())


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
    range: Annotated[tuple[Number, Number], Field(strict=False)] = (0.0, 1.0)  # of the tuple: YAML has only lists
    pass_threshold: Number | None = Field(default=None, alias="pass")
    version: PositiveInt = 1


class TaskKeys(BaseModel):
    """A whole task file."""

    model_config = _STRICT
    name: str | None = None  # by default the name of its folder
    folder: str | None = None  # where relative paths and reward modules start; by default the file's folder
    model: str
    prompts: PromptKeys
    depends: list[str] = Field(default_factory=list)  # files, folders and patterns that rewards read
    template: str = "{prompt}"
    add_special_tokens: bool | None = None  # by default what the tokenizer adds in front
    special_tokens_in_prompts: bool = False  # True for prompts that were written with a chat template
    max_prompt_tokens: PositiveInt = 256
    max_completion_tokens: PositiveInt = 64
    beta: Annotated[FiniteFloat, Field(ge=0, le=MAX_BETA)] = 0.05
    judged_on: Literal["J", "utility"] = "utility"
    objectives: dict[str, ObjectiveKeys]
    audit: dict[str, ObjectiveKeys] = Field(default_factory=dict)
    reference_point: list[Number] | None = None  # by default the lower end of every range
    learner: dict[str, Any] = Field(default_factory=dict)  # what suits the base model, such as learning_rate


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


def validate(data: Mapping[str, object], place: Place) -> TaskKeys:
    """Check the keys of a task file.

    Raises:
        UnknownNameError: If there is a key that a task file does not have.
        ConfigError: If a key is missing or a value is of another kind.
    """
    try:
        return TaskKeys.model_validate(dict(data))
    except ValidationError as error:
        raise explain(error, place, _known_keys, advice=ADVICE) from None


def _known_keys(path: KeyPath) -> list[str]:
    kinds: dict[int, type[BaseModel]] = {0: TaskKeys, 1: PromptKeys, 2: ObjectiveKeys, 3: RewardModelKeys}
    return [item.alias or name for name, item in kinds[len(path)].model_fields.items()]
