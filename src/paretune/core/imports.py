"""Importing what a study or a file names as `module:name`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from paretune.core.errors import ConfigError, StopRequested
from paretune.core.surroundings import surroundings_kept
from paretune.core.user_calls import described, real_interrupts, user_line
from paretune.core.user_folders import asked, reserved_advice


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
        found = getattr(imported(module), attribute)
    except StopRequested:
        raise
    except BaseException as error:  # importing runs the user's code, which may raise anything
        got, line = described(error), user_line(error)
        if line or not isinstance(error, (ImportError, AttributeError, ValueError, TypeError)):
            raise ConfigError(
                f"module of {noun} '{name}' must be importable, got {got}{line}. Correct the module."
            ) from error
        advice = reserved_advice(module) or (
            "Check the spelling, and that its file lies beside the study, in the current folder or on the import path."
        )
        raise ConfigError(f"{noun} must be an importable 'module:name', got '{name}' ({got}). {advice}") from error
    missing = [part for part in parts if not hasattr(found, part)]
    if missing or (parts and not isinstance(found, type)) or not callable(found):
        is_class = isinstance(found, type)
        got = f"one without {', '.join(missing)}" if missing and is_class else f"a {type(found).__name__}"
        wanted = f"a class with {', '.join(parts)}" if parts else "something to call"
        raise ConfigError(f"{noun} '{name}' must be {wanted}, got {got}. {advice}")
    return found


def imported(module: str) -> ModuleType:
    """Import a module that somebody names, from the folders of users too; the process stays as it was around it.

    Raises:
        StopRequested: In place of the KeyboardInterrupt of a real Ctrl-C; what the module raises goes through.
    """
    if module in sys.modules and module.partition(".")[0] == "paretune":
        return sys.modules[module]  # runs nothing, and planning asks thousands of times
    importlib.invalidate_caches()  # a file written a moment ago is not yet in the listing Python keeps of its folder
    with asked(module), surroundings_kept(f"module '{module}'", ConfigError), real_interrupts():
        return importlib.import_module(module)
