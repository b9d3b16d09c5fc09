"""Checks that raise one clear error: what, where, rule, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from numbers import Integral

from paretune.core.errors import ConfigError, UnknownNameError


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


def check_seed(seed: object) -> int:
    """Return a seed as an int; it must be a whole number from 0 on.

    Raises:
        ConfigError: If it is not.
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise ConfigError(f"seed must be a whole number from 0 on, got {seed!r}. Write 0, 1, 2, ...")
    return int(seed)
