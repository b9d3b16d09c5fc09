"""Settings: dataclasses made from the plain data that people write, every value checked."""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import lru_cache, partial
from typing import Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from paretune.core.checks import did_you_mean, yaml_line
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


@dataclass(frozen=True)
class Written:
    """Where a person wrote settings, for messages.

    Attributes:
        at: From the keys that lead to a value to what opens a message, such as `study.yaml:5:7: methods.mine.rank`.
        line: From these keys and the value to the line that sets it there, such as `rank: 8`.
    """

    at: Callable[..., str]
    line: Callable[[Sequence[str], object], str] = lambda keys, value: yaml_line(keys[-1], value)


def written_at(path: str | Written) -> Written:
    """Return where settings were written; of a text, their keys follow it behind dots."""
    return path if isinstance(path, Written) else Written(lambda *keys: ".".join([path, *map(str, keys)]))


def make_settings(cls: type, values: Mapping[str, object], path: str | Written, owner: str = "") -> Any:
    """Make a settings dataclass from plain data; nested dataclasses from nested mappings.

    Args:
        cls: The dataclass.
        values: What differs from its defaults.
        path: Opens the message when a value breaks its rule; or says so of each key.
        owner: Whose settings they are, in the message of a key that it does not have; empty for the path.

    Raises:
        ConfigError: If a key is unknown, or a value has the wrong type or range.
        MethodError: If making it raises something else.
    """
    where = written_at(path)
    try:
        _check_settings_keys(cls, values, where, owner or where.at())
        with called(f"{where.at()}: {cls.__name__}"):
            made = _adapter(cls).validate_python(dict(values))
        _check_as_written(values, made, where)
        return made
    except (MethodError, ConfigError):
        raise
    except (PydanticUserError, NameError) as error:  # types that lie in no module, or that no file can hold
        raise ConfigError(
            f"{where.at()}: fields of {cls.__name__} must be numbers, text, lists, mappings or such dataclasses, got: "
            f"{str(error).splitlines()[0]}. Correct their types."
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "value_error":  # raised by __post_init__, already a full sentence
            raise ConfigError(_opened(str(first["ctx"]["error"]), values, where, first["loc"])) from None
        rule = first["msg"].removeprefix("Input should ").split(",", maxsplit=1)[0]
        name = where.at(*first["loc"])
        raise ConfigError(f"{name} must {rule}, got {brief(first.get('input'))}. Correct it.") from None
    except ParetuneError as error:
        raise ConfigError(_opened(str(error), values, where)) from None


def _opened(sentence: str, values: object, where: Written, keys: Sequence[str | int] = ()) -> str:
    """Open a sentence of a dataclass with where its subject was written: the setting that it starts with, or all."""
    for key in keys:
        values = values[key] if isinstance(values, Mapping) and key in values else None
    subject, _, rest = sentence.partition(" ")
    if isinstance(values, Mapping) and subject in values and rest.startswith("must "):
        return where.at(*keys, subject) + sentence.removeprefix(subject)
    return f"{where.at(*keys)}: {sentence}"


def _check_as_written(given: object, made: object, where: Written, *keys: str | int) -> None:
    """Refuse a value that was read as something else than it looks like: a text or a truth value as a number."""
    if isinstance(given, Mapping):
        for key, value in given.items():
            found = made.get(key) if isinstance(made, Mapping) else getattr(made, str(key), None)
            _check_as_written(value, found, where, *keys, key)
    elif isinstance(given, (list, tuple)) and isinstance(made, (list, tuple)):
        for index, (value, found) in enumerate(zip(given, made)):
            _check_as_written(value, found, where, *keys, index)
    elif isinstance(given, float) and not math.isfinite(given) and made != str(given):  # a word that some settings have
        raise ConfigError(f"{where.at(*keys)} must be a finite number, got {given!r}. Write its digits.")
    elif isinstance(made, bool) != isinstance(given, bool) and isinstance(made, _SCALARS):
        raise ConfigError(f"{where.at(*keys)} must be {_KINDS[type(made)]}, got {brief(given)}. Correct it.")
    elif isinstance(given, str) and isinstance(made, (int, float)):
        raise ConfigError(f"{where.at(*keys)} must be a number, got the text {brief(given)}. Write it without quotes.")


_SCALARS = (bool, int, float, str)
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@lru_cache
def _adapter(cls: type) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def _check_settings_keys(cls: type, values: Mapping[str, object], where: Written, owner: str, *above: str) -> None:
    names = {field.name for field in fields(cls) if field.init}
    hints = typing.get_type_hints(cls)
    for key, value in values.items():
        keys = (*above, str(key))
        if key not in names:
            if not names:
                raise ConfigError(
                    f"{where.at(*above)}: settings of {owner} must be left out, as it has none, got '{key}'. Remove it."
                )
            guess = did_you_mean(str(key), names, partial(_corrected, where, above, value)) or " Remove it."
            raise ConfigError(  # what to do comes before the list, which is long
                f"{where.at(*keys)} must be one of the settings of {owner}, got '{key}'.{guess} It has "
                f"{', '.join(sorted(names))}."
            )
        if is_dataclass(hints.get(key)) and isinstance(value, Mapping):
            _check_settings_keys(hints[key], value, where, str(key), *keys)


def _corrected(where: Written, above: Sequence[str], value: object, key: str) -> str:
    return where.line((*above, key), value)
