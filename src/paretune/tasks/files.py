"""A task from a task file: the user's model, prompts, rewards and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from paretune.core.checks import did_you_mean, user_path
from paretune.core.digests import digest, model_digest
from paretune.core.errors import ConfigError, ModelError, ParetuneError, TaskError, UnknownNameError
from paretune.core.file_lists import Tally, matching
from paretune.core.limits import LEAST_RANGE
from paretune.core.model_files import check_model_files
from paretune.core.settings import Written, make_settings
from paretune.core.task import SPLITS, Objective, Row, Split, Task
from paretune.core.user_code import code_files, files_digest
from paretune.core.user_files import data_digests
from paretune.objectives import OBJECTIVES
from paretune.objectives.reward_models import check_one_logit
from paretune.objectives.user_modules import check_reference
from paretune.rl.settings import LearnerSettings
from paretune.tasks.checks import check_context
from paretune.tasks.prompts import check_overlap, load_split
from paretune.tasks.schema import ObjectiveKeys, RewardModelKeys, TaskKeys, validate
from paretune.tasks.strict_yaml import Place, read_yaml

HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
OBJECTIVE_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")  # it names columns, and stands before = on a command line


def load_task_file(file: Path) -> Task:
    """Load a task file.

    Raises:
        UnknownNameError: If it has an unknown key, or names an unknown objective or function.
        ConfigError: If it breaks its schema.
        TaskError: If prompts or rewards cannot be used.
        ModelError: If a model cannot be used.
    """
    data, place = read_yaml(file)
    return _build(data, place, place.folder.name, str(file.resolve()))


def task_from_mapping(data: Mapping[str, object], folder: Path) -> Task:
    """Load a task from the content of a task file.

    Args:
        data: Keys and values of a task file; `folder` among them wins over the argument.
        folder: Where relative paths and reward modules start.

    Raises:
        UnknownNameError: If it has an unknown key, or names an unknown objective or function.
        ConfigError: If it breaks its schema.
        TaskError: If prompts or rewards cannot be used.
        ModelError: If a model cannot be used.
    """
    base = (folder / user_path(str(data.get("folder") or "."))).resolve()
    return _build(data, Place("task", base), "task", {**data, "folder": str(base)})


def _build(data: Mapping[str, object], place: Place, name: str, source: str | Mapping[str, object]) -> Task:
    keys = validate(data, place)
    if keys.folder is not None:
        place = Place(place.name, place.resolve(keys.folder), place.spots)
    _check(keys, place)
    learner = make_settings(LearnerSettings, keys.learner, Written(partial(place.at, "learner")), "the learner")
    model = _model(keys.model, place, "model")
    read = _depends(keys, place)
    objectives, audit = (
        tuple(_reading(_objective(name, item, place, group), read, model, place) for name, item in each.items())
        for group, each in (("objectives", keys.objectives), ("audit", keys.audit))
    )
    reference = keys.reference_point if keys.reference_point is not None else [item.range[0] for item in objectives]
    task = Task(
        name=keys.name or name,
        source=source,
        model=model,
        model_digest=_model_digest(model, place, "model"),
        template=keys.template,
        splits=_splits(keys, place),
        objectives=objectives,
        audit=audit,
        reference_point=tuple(reference),
        beta=keys.beta,
        judged_on=keys.judged_on,
        max_prompt_tokens=keys.max_prompt_tokens,
        max_completion_tokens=keys.max_completion_tokens,
        learner={name: getattr(learner, name) for name in keys.learner},
        add_special_tokens=keys.add_special_tokens,
        special_tokens_in_prompts=keys.special_tokens_in_prompts,
    )
    check_context(task)
    return task


def _check(keys: TaskKeys, place: Place) -> None:
    """Check what a schema cannot say, before any file is read."""
    if "{prompt}" not in keys.template:
        raise ConfigError(
            f"{place.at('template')} must contain {{prompt}}, got {keys.template!r}. Write {{prompt}} where the prompt "
            "goes."
        )
    if not keys.objectives:
        raise ConfigError(
            f"{place.at('objectives')} must name at least one objective, got none. Write one, such as brevity: "
            "{reward: brevity}."
        )
    for group in ("objectives", "audit"):
        for name, item in getattr(keys, group).items():
            _check_objective(name, item, place, group)
    for name in keys.audit:
        if name in keys.objectives:
            raise ConfigError(
                f"{place.at('audit', name)} must be scored in evaluation only, got an objective of the same name. "
                "Rename it, or remove one."
            )
    count = len(keys.objectives)
    if keys.reference_point is not None and len(keys.reference_point) != count:
        raise ConfigError(
            f"{place.at('reference_point')} must have one number per objective ({count}), got "
            f"{len(keys.reference_point)}. List them in the order of objectives."
        )


def _check_objective(name: str, item: ObjectiveKeys, place: Place, group: str) -> None:
    if not OBJECTIVE_NAME.fullmatch(name):
        raise ConfigError(
            f"{place.at(group, name)} must be letters, digits, _ and -, a letter first, got '{name}'. Rename it."
        )
    low, high = item.range
    if high - low < LEAST_RANGE:
        rule = "lowest below highest" if low >= high else f"{LEAST_RANGE:g} or more between them"
        raise ConfigError(
            f"{place.at(group, name, 'range')} must be [lowest, highest] with {rule}, got [{low:g}, {high:g}]. Swap or "
            "correct them."
        )
    if item.pass_threshold is not None and not low <= item.pass_threshold <= high:
        raise ConfigError(
            f"{place.at(group, name, 'pass')} must lie in the range [{low:g}, {high:g}], got {item.pass_threshold:g}. "
            "Correct one of them."
        )
    if not isinstance(item.reward, RewardModelKeys):
        return
    if "{completion}" not in item.reward.template:
        raise ConfigError(
            f"{place.at(group, name, 'reward', 'template')} must contain {{completion}}, got "
            f"{item.reward.template!r}. Write {{completion}} where the completion goes."
        )
    if item.reward.transform == "identity" and "range" not in item.model_fields_set:
        raise ConfigError(
            f"{place.at(group, name, 'range')} must be given with transform: identity, got nothing. Write the lowest "
            "and the highest logit you expect."
        )


def _splits(keys: TaskKeys, place: Place) -> dict[Split, tuple[Row, ...]]:
    prompts = keys.prompts
    splits = {split: load_split(getattr(prompts, split), split, prompts.column, place) for split in SPLITS}
    if not prompts.allow_overlap:
        check_overlap(splits, place)
    return splits


def _objective(name: str, item: ObjectiveKeys, place: Place, group: str) -> Objective:
    common = Objective(name=name, reward="", range=item.range, pass_threshold=item.pass_threshold, version=item.version)
    if isinstance(item.reward, RewardModelKeys):
        return _model_objective(common, item.reward, place, (group, name, "reward", "model"))
    where = place.at(group, name, "reward")
    reward = item.reward
    if ":" not in reward and _is_path(reward):
        return _model_objective(common, RewardModelKeys(model=reward), place, (group, name, "reward"))
    if ":" not in reward:
        if reward not in OBJECTIVES:
            raise UnknownNameError(
                f"{where} must be module:function, a model folder, or one of {', '.join(sorted(OBJECTIVES))}, got "
                f"'{reward}'.{did_you_mean(reward, OBJECTIVES) or ' Write module:function for one of your own.'}"
            )
        reward = OBJECTIVES[reward]
    if reward in OBJECTIVES.values():  # ours: its version stands for its meaning
        return replace(common, reward=reward)
    try:
        check_reference(reward, place.folder)
        files = code_files(reward, place.folder)
    except (TaskError, UnknownNameError) as error:
        raise type(error)(f"{where}: {error}") from error
    source = files_digest(reward, files)
    return replace(common, reward=reward, source_digest=source, import_path=str(place.folder), files=files)


def _depends(keys: TaskKeys, place: Place) -> dict[str, str]:
    """Return the files that rewards are declared to read, each by its path from the folder with its digest."""
    found, tally = dict[Path, None](), Tally()
    for index, text in enumerate(keys.depends):
        try:
            files = matching(text, place.folder, tally)
        except ParetuneError as error:
            raise TaskError(f"{place.at('depends', index)} '{text}': {error}") from error
        if not files:
            raise TaskError(
                f"{place.at('depends', index)} must name a file, folder or pattern of files that are there, got "
                f"'{text}'. Check the path."
            )
        found |= dict.fromkeys(files)
    return data_digests(found, place.folder)


def _reading(objective: Objective, read: Mapping[str, str], model: str, place: Place) -> Objective:
    """Return an objective that may read the declared files, and the base model's, which the task's key covers."""
    if objective.import_path is None:
        return objective
    source = digest([objective.source_digest, read]) if read else objective.source_digest
    paths = (str(place.folder / each) for each in read)
    return replace(objective, source_digest=source, depends=(*paths, model), files={**objective.files, **read})


def _model_objective(common: Objective, keys: RewardModelKeys, place: Place, path: tuple[str, ...]) -> Objective:
    model = _model(keys.model, place, *path)
    source = _model_digest(model, place, *path)
    try:
        check_one_logit(model)
    except ModelError as error:
        raise ModelError(f"{place.at(*path)}: {error}") from error
    return replace(
        common,
        kind="model",
        reward=model,
        source_digest=source,
        template=keys.template,
        transform=keys.transform,
    )


def _is_path(text: str) -> bool:
    return text.startswith((".", "/", "~")) or "/" in text


def _model(model: str, place: Place, *path: str) -> str:
    """Return a model folder as an absolute path, or a hub id as it is."""
    folder = place.resolve(model)
    if folder.is_dir():
        return str(folder)
    if model.startswith((".", "/", "~")) or not HUB_ID.fullmatch(model):
        raise ModelError(
            f"{place.at(*path)} must be a model folder that exists, or a hub id, got '{model}' ({folder}). Check the "
            "path."
        )
    return model


def _model_digest(model: str, place: Place, *path: str) -> str:
    try:
        made = model_digest(model)
        check_model_files(model, "model" if path == ("model",) else "reward model")
        return made
    except ModelError as error:
        raise ModelError(f"{place.at(*path)}: {error}") from error
