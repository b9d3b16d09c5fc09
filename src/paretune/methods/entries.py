"""A method as a study names it, with all its settings."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paretune.core.checks import yaml_line
from paretune.core.errors import ConfigError, MethodError
from paretune.core.feedback import FEEDBACKS
from paretune.core.protocols import Method
from paretune.core.settings import Written, make_settings, plain_settings, written_at
from paretune.core.task import Task
from paretune.core.user_code import loaded_code
from paretune.methods.feedback import FeedbackSettings
from paretune.rl.settings import LearnerSettings


@dataclass(frozen=True)
class MethodEntry:
    """A method as a study names it.

    Attributes:
        label: Its name in this study, in folders and in tables.
        source: Name of a built-in method, or `module:Class`.
        method: The method with its settings.
        settings: All its settings as plain data, defaults included.
        kept: Those that keys and files hold: of those declared with `OPTIONAL` what is not the default.
        version: Its version; the digest of its code where it is a user's own.
        given: Names of the settings that the study gives, where a task's own defaults must not replace them.
    """

    label: str
    source: str
    method: Method
    settings: Mapping[str, object]
    kept: Mapping[str, object]
    version: int | str
    given: frozenset[str] = frozenset()


def method_entry(label: str, value: Any, path: str | Written) -> MethodEntry:
    """Check one entry of `methods` and make the method.

    Args:
        label: Its key in the study.
        value: Its settings; `method` among them names the method where the key does not.
        path: Opens the message when it is broken; or says so of each setting.

    Raises:
        ConfigError: If the method, a setting or a value breaks its rule.
    """
    from paretune.methods import check_method_name, resolve_method

    where = written_at(path)
    settings = {} if value is None else value
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{where.at()} must hold settings, got {settings!r}. Write '{label}: {{}}' for the defaults.")
    settings = dict(settings)
    source = str(settings.pop("method", label))
    if source == label:
        check_method_name(source, where.at(), lambda meant: yaml_line(meant, settings))
    else:
        check_method_name(source, where.at("method"), lambda meant: where.line(["method"], meant))
    try:
        cls: Any = resolve_method(source)
    except ConfigError as error:
        raise ConfigError(f"{where.at()}: {error}") from error
    _check_has_feedback(cls.Settings, settings, where.at("feedback"))
    made = make_settings(cls.Settings, settings, where, source)
    return MethodEntry(
        label=label,
        source=source,
        method=_make(cls, made, where.at()),
        settings=dataclasses.asdict(made),
        kept=plain_settings(made),
        version=loaded_code([source] if ":" in source else []).get(source, cls.version),
        given=frozenset(settings),
    )


def _make(cls: Any, settings: Any, path: str) -> Method:
    from paretune.methods.asking import made_method

    try:
        return made_method(cls, settings)
    except MethodError as error:
        raise MethodError(f"{path}: {error}") from error


def on_task(entry: MethodEntry, task: Task) -> MethodEntry:
    """Return a method with the learner's settings that suit a task.

    What the study gives goes first, then what the method itself sets apart from the general default. Methods whose
    settings are not `LearnerSettings` are left as they are.

    Raises:
        ConfigError: If the task's settings do not go together with those of the study.
    """
    kind = entry.method.Settings
    if not issubclass(kind, LearnerSettings):
        return entry
    own = {
        name: value
        for name, value in task.learner.items()
        if name not in entry.given and getattr(kind, name, None) == getattr(LearnerSettings, name, None)
    }
    return with_settings(entry, own, f"learner of task '{task.name}', for {entry.label}") if own else entry


def has_setting(settings: object, name: str) -> bool:
    """Whether settings hold a name; dots go into nested ones."""
    first, _, rest = name.partition(".")
    if not isinstance(settings, Mapping) or first not in settings:
        return False
    return not rest or has_setting(settings[first], rest)


def setting(settings: Mapping[str, Any], name: str) -> object:
    """Return the value of a setting; dots go into nested ones."""
    first, _, rest = name.partition(".")
    return setting(settings[first], rest) if rest else settings[first]


def with_settings(entry: MethodEntry, changes: Mapping[str, object], path: str) -> MethodEntry:
    """Return a method with some of its settings changed.

    Args:
        entry: The method.
        changes: Name of a setting it has -> value; dots name nested ones.
        path: Opens the message when a value breaks its rule.

    Raises:
        ConfigError: If a value has the wrong type or range.
    """
    settings: dict[str, Any] = copy.deepcopy(dict(entry.settings))
    for name, value in copy.deepcopy(dict(changes)).items():
        *above, last = name.split(".")
        part = settings
        for key in above:
            part = part[key]
        part[last] = value
    made = make_settings(entry.method.Settings, settings, path, entry.source)
    return dataclasses.replace(
        entry,
        method=_make(type(entry.method), made, path),
        settings=dataclasses.asdict(made),
        kept=plain_settings(made),
    )


def _check_has_feedback(kind: type, given: Mapping[str, object], path: str) -> None:
    """Refuse a class of feedback where a method has none, in words that say why.

    Args:
        kind: Dataclass of the method's settings.
        given: What a study gives of them.
        path: Opens the message.

    Raises:
        ConfigError: If one is given that the method does not have.
    """
    own = next((each.default for each in dataclasses.fields(kind) if each.name == "feedback"), None)
    if own not in FEEDBACKS and given.get("feedback") in FEEDBACKS:
        *others, last = _methods_with(str(given["feedback"]))
        raise ConfigError(
            f"{path} must be left out: the method reads the reward of each objective, for the preference that "
            f"it is told, got '{given['feedback']}'. Take {', '.join(others)} or {last}."
        )


def _methods_with(feedback: str) -> list[str]:
    """Return the names of the methods that can be run with a class of feedback."""
    from paretune.methods import METHODS, resolve_method

    found = {name: resolve_method(name).Settings for name in METHODS}
    return [name for name, own in found.items() if issubclass(own, FeedbackSettings) and feedback in own.feedbacks]
