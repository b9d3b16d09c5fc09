"""Checks that raise one clear error: what, where, rule, what to do."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Mapping, Set
from numbers import Integral
from pathlib import Path

from paretune.core.errors import ConfigError, ShapeError, UnknownNameError
from paretune.core.limits import MAX_SEED
from paretune.core.printable import brief, is_writable, printable_line


def did_you_mean(value: str, choices: Iterable[str], line: Callable[[str], str] | None = None) -> str:
    """Return ` Did you mean 'x'?` for the closest choice, or an empty string when nothing is close.

    Args:
        value: What was written.
        choices: What can be written.
        line: From the closest choice to the corrected line, which follows: ` Write `x: 3`.`
    """
    close = difflib.get_close_matches(value, list(choices), n=1, cutoff=0.6)
    if not close:
        return ""
    return f" Did you mean '{close[0]}'?" + ("" if line is None else f" Write `{line(close[0])}`.")


LONGEST_VALUE = 60  # letters of a value in a corrected line; of a longer one its writer knows the rest


def yaml_value(value: object) -> str:
    """Return a value as a settings file has it, in one line; three dots for a long one."""
    text = json.dumps(value, ensure_ascii=False, default=str)  # which is YAML, too
    return printable_line(text) if len(text) <= LONGEST_VALUE else "..."


def yaml_line(key: str, value: object) -> str:
    """Return a key with its value as a line of a settings file.

    Example:
        >>> yaml_line("learning_rate", 0.001)
        'learning_rate: 0.001'
    """
    return f"{key}: {yaml_value(value)}"


MOST_SHOWN = 12  # choices that a message lists: behind more, nobody finds what to do


def check_choice(
    name: str, value: str, choices: Iterable[str], listed: str = "", line: Callable[[str], str] | None = None
) -> str:
    """Return `value` if it is one of `choices`.

    Args:
        name: What it is, opens the message.
        value: Of the choice.
        choices: All that it may be.
        listed: A command that lists them, in whose place a message counts more than `MOST_SHOWN`.
        line: From the closest choice to the corrected line, where the message is to show it.

    Raises:
        UnknownNameError: If it is not; the message lists the choices and suggests the closest.
    """
    known = sorted(choices)
    if value not in known:
        guess = did_you_mean(value, known, line)
        if listed and len(known) > MOST_SHOWN:
            raise UnknownNameError(
                f"{name} must be one of {len(known)} names, got '{value}'.{guess} `{listed}` lists all."
            )
        raise UnknownNameError(
            f"{name} must be one of {', '.join(known)}, got '{value}'.{guess or ' Name one of these.'}"
        )
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


def check_text(name: str, text: object) -> str:
    """Return a text as it is.

    Raises:
        ShapeError: If it is none, or holds half of a surrogate pair, which no file and no tokenizer can take.
    """
    if not isinstance(text, str):
        raise ShapeError(f"{name} must be a text, got {_kind(text)}. Write a str.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ShapeError(
            f"{name} must be text that can be written as UTF-8, got the lone surrogate {text[error.start]!a} at "
            f"character {error.start}. Remove it, or read the text with the encoding that it was written in."
        ) from None
    return text


def check_texts(name: str, texts: object, least: int = 1) -> list[str]:
    """Return a list of texts; a text on its own is none, though Python would read it letter by letter.

    Raises:
        ShapeError: If it is no list of texts, or has fewer than `least`; the message says which entry is wrong.
    """
    if isinstance(texts, str):
        raise ShapeError(f"{name} must be a list of texts, got the text {texts[:40]!a}. Put it into a list.")
    if isinstance(texts, (bytes, bytearray, Mapping, Set)) or not isinstance(texts, Iterable):
        raise ShapeError(f"{name} must be a list of texts, got {_kind(texts)}. Write a list of str.")
    listed = [check_text(f"{name}[{place}]", text) for place, text in enumerate(texts)]
    if len(listed) < least:
        raise ShapeError(f"{name} must have at least one text, got an empty list. Write one.")
    return listed


def text_pairs(prompts: object, completions: object) -> list[tuple[str, str]]:
    """Return each prompt with its completion.

    Raises:
        ShapeError: If one of them is no list of texts, or they are not of one length.
    """
    asked, said = (check_texts(*each, least=0) for each in (("prompts", prompts), ("completions", completions)))
    if len(asked) != len(said):
        raise ShapeError(f"prompts must be one per completion ({len(said)}), got {len(asked)}. Repeat the prompts.")
    return list(zip(asked, said, strict=True))


def _kind(value: object) -> str:
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
