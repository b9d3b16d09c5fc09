"""One sentence in our words for the first thing pydantic finds wrong in a file of settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from paretune.core.checks import did_you_mean, yaml_line
from paretune.core.errors import ConfigError, UnknownNameError
from paretune.core.printable import brief
from paretune.tasks.strict_yaml import KeyPath, Place

NOTHING: Mapping[str, str] = MappingProxyType({})


def explain(
    error: ValidationError,
    place: Place,
    known_keys: Callable[[KeyPath], Iterable[str]],
    rules: Mapping[str, str] = NOTHING,
    advice: Mapping[str, str] = NOTHING,
) -> ConfigError:
    """Return what to raise in place of pydantic's error.

    Args:
        error: What pydantic raised. Parts of a location that start with `<` are tags of a union, not keys.
        place: Where the settings come from.
        known_keys: From the path of a mapping to the keys it may have.
        rules: Key -> what follows `must`, where our words are clearer than pydantic's.
        advice: Key -> what to do.

    Returns:
        An `UnknownNameError` for an unknown key, which comes first: the missing key is often the misspelt one.
    """
    detail = min(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
    path = tuple(part for part in detail["loc"] if not str(part).startswith("<"))
    key = str(next((part for part in reversed(path) if isinstance(part, str)), ""))
    where = place.at(*path)
    if detail["type"] == "extra_forbidden":
        known = sorted(known_keys(path[:-1]))
        guess = did_you_mean(key, known, lambda meant: yaml_line(meant, detail["input"])) or " Remove it."
        return UnknownNameError(f"{where} must be one of the keys {', '.join(known)}, got '{key}'.{guess}")
    if detail["type"] == "missing":
        return ConfigError(f"{where} must be given, got nothing. {advice.get(key, 'Add it.')}")
    rule = rules.get(key) or _rule(detail)
    return ConfigError(f"{where} must {rule}, got {brief(detail['input'])}. {advice.get(key, 'Correct it.')}")


def _rule(detail: Any) -> str:
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    if detail["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return "hold keys and values"
    rule, found = re.subn(r"^(Input|List|Dictionary|Tuple|String) should ", "", detail["msg"])
    return rule.replace("valid integer", "whole number") if found else f"be valid ({rule})"
