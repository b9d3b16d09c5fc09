"""Checks that raise one clear error: what, where, rule, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from numbers import Integral
from pathlib import Path

from paretune.core.errors import ConfigError, UnknownNameError
from paretune.core.limits import MAX_SEED
from paretune.core.printable import brief, is_writable


def did_you_mean(value: str, choices: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the closest choice, or an empty string when nothing is close."""
    close = difflib.get_close_matches(value, list(choices), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""


def check_choice(name: str, value: str, choices: Iterable[str]) -> str:
    """Return `value` if it is one of `choices`.

    Raises:
        UnknownNameError: If it is not; the message lists the choices and suggests the closest.
    """
    known = sorted(choices)
    if value not in known:
        raise UnknownNameError(f"{name} must be one of {', '.join(known)}, got '{value}'.{did_you_mean(value, known)}")
    return value


def check_count(name: str, value: object, least: int, most: int, advice: str = "Correct it.") -> int:
    """Return a whole number of a range as an int.

    Raises:
        ConfigError: If it is something else, or outside of the range.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) <= most:
        above = isinstance(value, Integral) and int(value) > most
        rule = f"at most {most:,}" if above else f"a whole number from {least} on"
        raise ConfigError(f"{name} must be {rule}, got {brief(value)}. {advice}")
    return int(value)


def check_seed(seed: object) -> int:
    """Return a seed as an int; it must be a whole number from 0 on.

    Raises:
        ConfigError: If it is not.
    """
    return check_count("seed", seed, 0, MAX_SEED, "Write 0, 1, 2, ...")


def user_path(path: str | Path) -> Path:
    """Return a path that a person wrote, its `~` replaced.

    Raises:
        ConfigError: If it names the home of nobody, or has a character that no path can have.
    """
    text = str(path)
    if "\0" in text or not is_writable(text):
        raise ConfigError(f"a path must be text without NUL, got {brief(text)}. Correct it.")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"a path that begins with ~ must name the home of a user, got {brief(text)}. Write the path in full, or "
            "with ./ before the ~ for a file of that name."
        ) from error
