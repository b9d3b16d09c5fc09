"""Parts that a setting names: by a word, as `module:Class`, or as a mapping with that as `kind` beside its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError
from paretune.core.imports import import_name
from paretune.core.settings import make_settings


def make_named(
    setting: str, given: str | Mapping[str, Any], known: Mapping[str, str], parts: Sequence[str], example: str
) -> Any:
    """Make what a setting names: a dataclass whose fields are its own settings.

    Args:
        setting: Its name, for messages.
        given: A word of `known`, `module:Class` of one's own, or a mapping with that as `kind` beside its settings.
        known: Word -> `module:Class`.
        parts: Methods that its class must have.
        example: Such a mapping, for messages.

    Raises:
        ConfigError: If there is no such class, it lacks a part, or a setting breaks its rule.
    """
    settings = dict(given) if isinstance(given, Mapping) else {"kind": given}
    name = settings.pop("kind", None)
    if not isinstance(name, str):
        raise ConfigError(f"{setting} must name its kind, got {given!r}. Write {example}, or the name alone.")
    path = name if ":" in name else known[check_choice(setting, name, (*known, "module:Class"))]
    found = import_name(setting, path, parts)
    if not (isinstance(found, type) and is_dataclass(found)):
        raise ConfigError(
            f"{setting} '{name}' must be a dataclass, whose fields are its settings, got a plain class. Put "
            "@dataclass(frozen=True) above it."
        )
    return make_settings(found, settings, setting, name)
