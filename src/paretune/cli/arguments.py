"""Types of the command line's arguments: a number is what it looks like, and lies in its range."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter, Token, UnknownCommandError, UnknownOptionError

from paretune.core.checks import check_count, did_you_mean, user_path
from paretune.core.errors import ConfigError
from paretune.core.limits import MAX_COMPLETIONS, MAX_QUESTIONS, MAX_SAMPLES, MAX_SEED, MAX_WORKERS
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


def usage_error(error: CycloptsError, arguments: Sequence[str], app: App) -> str:
    """Return what is wrong with a command line; where an option or command is misspelt, with the corrected line."""
    if isinstance(error, UnknownOptionError) and error.token is not None:
        wrong, noun = error.token.keyword or error.token.value, "option"
        known = {name for each in error.argument_collection or () for name in each.names}
    elif isinstance(error, UnknownCommandError) and error.unused_tokens:
        wrong, noun = error.unused_tokens[0], "command"
        known = {name for name in app if not name.startswith("-")}
    else:
        return str(error.__cause__ or error)
    command = shlex.join(["paretune", *(error.command_chain or ())])
    guess = did_you_mean(wrong, sorted(known), lambda meant: _corrected(arguments, wrong, meant))
    advice = guess or f" `{command} --help` explains them."
    return f"{noun} must be one of {', '.join(sorted(known))}, got '{wrong}'.{advice}"


def _corrected(arguments: Sequence[str], wrong: str, meant: str) -> str:
    """Return a command line with one word corrected."""
    place = next(index for index, each in enumerate(arguments) if each.partition("=")[0] == wrong)
    word = meant + arguments[place].removeprefix(wrong)
    return shlex.join(["paretune", *arguments[:place], word, *arguments[place + 1 :]])


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
Questions = Annotated[int, Parameter(converter=_whole(1, MAX_QUESTIONS))]
Number = Annotated[float, Parameter(converter=_number)]
Trackers = Annotated[list[str], Parameter(name="--tracker", negative=())]
