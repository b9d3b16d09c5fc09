"""Tasks: built-in ones, tasks from files, and tasks that a user's module makes."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from paretune.core.checks import check_choice, did_you_mean, user_path
from paretune.core.errors import TaskError, UnknownNameError
from paretune.core.task import Task
from paretune.core.user_calls import called, described
from paretune.core.user_folders import look_in

TASKS: Final[dict[str, str]] = {
    "counselling": "paretune.tasks.counselling:load",
    "controlled": "paretune.tasks.controlled:load",
}
"""Built-in tasks, name -> `module:function` that returns the task."""

FILE_NAME: Final = "task.yaml"


def load_task(source: str | Path | Mapping[str, object] | Task) -> Task:
    """Find and check a task; no model is loaded and no reward function runs.

    Args:
        source: Name of a built-in task, of a controlled one with its settings, as in `controlled-rho-0.8-l3`; path of a
            task file or of the folder of a `task.yaml`; `module:name` of a function or class that returns a task; one
            of these with arguments, `{"module:name": {"size": 3}}`; the content of a task file as a mapping, relative
            paths from the current folder; or a task.

    Returns:
        The task. Its `source` loads it again from any folder; a `module:name` needs the same import path.

    Raises:
        UnknownNameError: If there is no such task, key, function, argument of a built-in task, or column.
        ConfigError: If a task file breaks its schema.
        TaskError: If its prompts or rewards cannot be used.
        ModelError: If its model cannot be used.
    """
    if isinstance(source, Task):
        return source
    if isinstance(source, Mapping):
        if len(source) == 1 and (source.keys() <= TASKS.keys() or ":" in str(next(iter(source)))):
            ((name, arguments),) = source.items()
            return _call(str(name), arguments, dict(source))
        from paretune.tasks.files import task_from_mapping

        return task_from_mapping(source, Path.cwd())
    if str(source) in TASKS:
        return _call(str(source), {}, str(source))
    path = user_path(source)
    if isinstance(source, str) and source.startswith("controlled-") and not path.exists():
        from paretune.tasks.controlled import named

        made = named(source)
        if made is not None:
            return made
    if path.exists() or path.suffix in (".yaml", ".yml") or isinstance(source, Path):
        from paretune.tasks.files import load_task_file

        return load_task_file(_task_file(path))
    if ":" in source:
        return _call(source, {}, source)
    raise UnknownNameError(
        f"task must be one of {', '.join(sorted(TASKS))}, the path of a {FILE_NAME}, or module:name, got '{source}'."
        f"{did_you_mean(source, TASKS) or ' Check the name or the path.'}"
    )


def _task_file(path: Path) -> Path:
    file = path / FILE_NAME if path.is_dir() else path
    if not file.is_file():
        what = f"a folder without {FILE_NAME}, '{path}'" if path.is_dir() else f"'{path}'"
        raise TaskError(f"task file must exist, got {what}. Check the path, or write the file.")
    return file


def _call(name: str, arguments: object, source: str | Mapping[str, object]) -> Task:
    from paretune.objectives.user_modules import load_attribute

    if arguments is not None and not isinstance(arguments, Mapping):
        raise TaskError(f"arguments of task '{name}' must be a mapping, got {arguments!r}. Write them as key: value.")
    if name not in TASKS:
        look_in(Path.cwd())
    made = load_attribute(TASKS.get(name, name))
    if callable(made):
        if name in TASKS:
            _check_arguments(name, arguments or {}, tuple(inspect.signature(made).parameters))
        try:
            with called(f"task '{name}'", TaskError):
                made = made(**(arguments or {}))
        except TypeError as error:
            raise TaskError(
                f"task '{name}' must accept its arguments, got {described(error)}. Correct the arguments, or the "
                "function."
            ) from error
    if not isinstance(made, Task):
        raise TaskError(f"task '{name}' must be a Task, got {type(made).__name__}. Return a paretune.Task.")
    loaded = copy.copy(made)
    object.__setattr__(loaded, "source", source)  # frozen, and `replace` would call a subclass's own __init__
    return loaded


def _check_arguments(name: str, given: Mapping[object, object], known: tuple[str, ...]) -> None:
    if given and not known:
        raise TaskError(f"task '{name}' must have no arguments, got {', '.join(map(str, given))}. Leave them out.")
    for argument in given:
        check_choice(f"argument of task '{name}'", str(argument), known)
