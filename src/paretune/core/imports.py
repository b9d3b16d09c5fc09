"""Importing what a study or a file names as `module:name`."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from paretune.core.errors import ConfigError
from paretune.core.user_calls import described, user_line


def import_name(noun: str, name: str, parts: Sequence[str] = (), advice: str = "Name another, or complete it.") -> Any:
    """Import `module:name`.

    Args:
        noun: What it is, for messages.
        name: Where it is found.
        parts: Attributes it must have; with any, it must be a class.
        advice: What to do where it is found and is not what it must be.

    Raises:
        ConfigError: If it cannot be imported, or lacks a part.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (
        ImportError,
        AttributeError,
        ValueError,
        TypeError,
    ) as error:  # the last two: no module name, a relative one
        raise ConfigError(
            f"{noun} must be an importable 'module:name', got '{name}' ({error}). Check the spelling, and that the "
            "module's folder is on the import path."
        ) from error
    except (Exception, SystemExit) as error:  # importing runs the user's code, which may raise anything
        raise ConfigError(
            f"module of {noun} '{name}' must be importable, got {described(error)}{user_line(error)}. Correct the "
            "module."
        ) from error
    missing = [part for part in parts if not hasattr(found, part)]
    if missing or (parts and not isinstance(found, type)) or not callable(found):
        is_class = isinstance(found, type)
        got = f"one without {', '.join(missing)}" if missing and is_class else f"a {type(found).__name__}"
        wanted = f"a class with {', '.join(parts)}" if parts else "something to call"
        raise ConfigError(f"{noun} '{name}' must be {wanted}, got {got}. {advice}")
    return found
