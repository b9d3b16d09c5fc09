"""Types of the command line's arguments: a number is what it looks like, and lies in its range."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, Token

from paretune.core.checks import check_count, user_path
from paretune.core.errors import ConfigError
from paretune.core.limits import MAX_COMPLETIONS, MAX_SAMPLES, MAX_SEED, MAX_WORKERS
from paretune.core.printable import brief, is_writable
from paretune.tasks.strict_yaml import plain_value


def check_arguments(arguments: Sequence[str]) -> None:
    """Refuse what no command can use: the shell hands over bytes, which need not be text.

    Raises:
        ConfigError: If an argument is not UTF-8, or has a NUL.
    """
    for number, argument in enumerate(arguments, start=1):
        if "\0" in argument or not is_writable(argument):
            raise ConfigError(
                f"argument {number} must be UTF-8 text without NUL, got {brief(argument)}. Correct it, or the encoding "
                "of the terminal."
            )


def _whole(least: int, most: int) -> Callable[[Any, Sequence[Token]], int]:
    def read(kind: Any, tokens: Sequence[Token]) -> int:
        text = tokens[0].value
        value = plain_value(text)
        return check_count(tokens[0].keyword or "a number", value if type(value) is int else text, least, most)

    return read


def _number(kind: Any, tokens: Sequence[Token]) -> float:
    value = plain_value(tokens[0].value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{tokens[0].keyword} must be a number, got {brief(tokens[0].value)}. Write one, like 0.7.")
    return float(value)


def _output(kind: Any, tokens: Sequence[Token]) -> Path:
    if not tokens[0].value:
        raise ConfigError("output (-o) must be a folder, got an empty name. Name one, or . for this one.")
    return user_path(tokens[0].value)


Output = Annotated[Path, Parameter(name=["--output", "-o"], converter=_output)]
Workers = Annotated[int, Parameter(converter=_whole(1, MAX_WORKERS))]
Seed = Annotated[int, Parameter(converter=_whole(0, MAX_SEED))]
Budget = Annotated[int, Parameter(converter=_whole(1, MAX_COMPLETIONS))]
Samples = Annotated[int, Parameter(converter=_whole(1, MAX_SAMPLES))]
Number = Annotated[float, Parameter(converter=_number)]
