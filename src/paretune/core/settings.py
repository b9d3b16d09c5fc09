"""Settings: dataclasses made from the plain data that people write, every value checked."""

from __future__ import annotations

import math
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from functools import lru_cache
from typing import Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from paretune.core.checks import did_you_mean
from paretune.core.errors import ConfigError, MethodError, ParetuneError
from paretune.core.printable import brief
from paretune.core.user_calls import called

# metadata of settings that are written, and so are part of a key, only where they are not their default
OPTIONAL = {"optional": True}


def plain_settings(settings: Any) -> dict[str, Any]:
    """Return a settings dataclass as plain data; fields declared with `OPTIONAL` only where they are not their default.

    So a method that gains such a setting keeps the keys of all that was trained before.
    """
    values = asdict(settings)
    kept = [
        each.name for each in fields(settings) if not each.metadata.get("optional") or values[each.name] != each.default
    ]
    return {name: values[name] for name in kept}


def check_unread(settings: Any, names: Iterable[str], where: str, advice: str = "Remove it.") -> None:
    """Refuse settings that nothing reads as the others are, and that are not their default.

    Args:
        settings: The dataclass.
        names: Of those that are not read.
        where: Says why in a few words, "where search is 'grid'".
        advice: What to do.

    Raises:
        ConfigError: If one of them is not its default.
    """
    defaults = {each.name: each.default_factory() if callable(each.default_factory) else each.default
                for each in fields(settings)}  # fmt: skip
    changed = [name for name in names if getattr(settings, name) != defaults[name]]
    if changed:
        got = " and ".join(brief(getattr(settings, name)) for name in changed)
        raise ConfigError(f"{' and '.join(changed)} must be left out {where}, got {got}. {advice}")


def check_read(settings: Any, choice: str, readers: Mapping[str, Sequence[str]]) -> None:
    """Refuse settings that the chosen of several ways does not read; code of a user's own may read all of them.

    Args:
        settings: The dataclass.
        choice: Name of the setting that chooses, one of several words or `module:name`.
        readers: Name of a setting -> choices that read it; what all of them read is left out.

    Raises:
        ConfigError: If one of them is not its default.
    """
    chosen = str(getattr(settings, choice))
    for name, choices in readers.items():
        if chosen not in choices and ":" not in chosen:
            advice = f"Remove it, or write {choice}: {' or '.join(choices)}."
            check_unread(settings, (name,), f"where {choice} is '{chosen}'", advice)


def make_settings(cls: type, values: Mapping[str, object], path: str, owner: str = "") -> Any:
    """Make a settings dataclass from plain data; nested dataclasses from nested mappings.

    Args:
        cls: The dataclass.
        values: What differs from its defaults.
        path: Opens the message when a value breaks its rule.
        owner: Whose settings they are, in the message of a key that it does not have; empty for the path.

    Raises:
        ConfigError: If a key is unknown, or a value has the wrong type or range.
        MethodError: If making it raises something else.
    """
    try:
        _check_settings_keys(cls, values, path, owner or path)
        with called(f"{path}: {cls.__name__}"):
            made = _adapter(cls).validate_python(dict(values))
        _check_as_written(values, made, path)
        return made
    except (MethodError, ConfigError):
        raise
    except (PydanticUserError, NameError) as error:  # types that lie in no module, or that no file can hold
        raise ConfigError(
            f"{path}: fields of {cls.__name__} must be numbers, text, lists, mappings or such dataclasses, got: "
            f"{str(error).splitlines()[0]}. Correct their types."
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "value_error":  # raised by __post_init__, already a full sentence
            raise ConfigError(f"{path}: {first['ctx']['error']}") from None
        name = ".".join([path, *(str(part) for part in first["loc"])])
        rule = first["msg"].removeprefix("Input should ").split(",", maxsplit=1)[0]
        raise ConfigError(f"{name} must {rule}, got {brief(first.get('input'))}. Correct it.") from None
    except ParetuneError as error:
        raise ConfigError(f"{path}: {error}") from None


def _check_as_written(given: object, made: object, path: str) -> None:
    """Refuse a value that was read as something else than it looks like: a text or a truth value as a number."""
    if isinstance(given, Mapping):
        for key, value in given.items():
            found = made.get(key) if isinstance(made, Mapping) else getattr(made, str(key), None)
            _check_as_written(value, found, f"{path}.{key}")
    elif isinstance(given, (list, tuple)) and isinstance(made, (list, tuple)):
        for index, (value, found) in enumerate(zip(given, made)):
            _check_as_written(value, found, f"{path}.{index}")
    elif isinstance(given, float) and not math.isfinite(given) and made != str(given):  # a word that some settings have
        raise ConfigError(f"{path} must be a finite number, got {given!r}. Write its digits.")
    elif isinstance(made, bool) != isinstance(given, bool) and isinstance(made, _SCALARS):
        raise ConfigError(f"{path} must be {_KINDS[type(made)]}, got {brief(given)}. Correct it.")
    elif isinstance(given, str) and isinstance(made, (int, float)):
        raise ConfigError(f"{path} must be a number, got the text {brief(given)}. Write it without quotes.")


_SCALARS = (bool, int, float, str)
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@lru_cache
def _adapter(cls: type) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def _check_settings_keys(cls: type, values: Mapping[str, object], path: str, owner: str) -> None:
    names = {field.name for field in fields(cls) if field.init}
    hints = typing.get_type_hints(cls)
    for key, value in values.items():
        if key not in names:
            if not names:
                raise ConfigError(
                    f"{path}: settings of {owner} must be left out, as it has none, got '{key}'. Remove it."
                )
            guess = did_you_mean(str(key), names) or " Remove it."  # before the list, which is long
            raise ConfigError(
                f"{path}.{key} must be one of the settings of {owner}, got '{key}'.{guess} It has "
                f"{', '.join(sorted(names))}."
            )
        if is_dataclass(hints.get(key)) and isinstance(value, Mapping):
            _check_settings_keys(hints[key], value, f"{path}.{key}", key)
