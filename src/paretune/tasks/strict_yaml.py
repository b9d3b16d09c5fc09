"""YAML in which a value is what it looks like: read with lines and columns, and written so that it reads the same.

Values are those of YAML 1.2's core schema. What YAML 1.1 and other readers take for something else, such as `010`,
`1:30` or `yes`, is refused, as are tags, keys given twice and what would grow beyond `core/limits.py`. A key is the
text that stands there.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

from paretune.core.checks import user_path
from paretune.core.errors import ConfigError
from paretune.core.limits import MAX_NESTING, MAX_WHOLE, MAX_YAML_BYTES, MAX_YAML_CHARACTERS
from paretune.core.printable import brief, is_writable, printable_line
from paretune.core.text_files import decoded

KeyPath = tuple[str | int, ...]
Spot = tuple[int, int]  # line and column, counted from 1

NULLS: Final = ("", "~", "null", "Null", "NULL")
TRUTHS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
WHOLE: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)")
DECIMAL: Final = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
OTHERWISE: Final = (  # what readers disagree on: the pattern, what must stand there, what to write
    (re.compile(r"yes|no|on|off", re.IGNORECASE), "be true, false or text in quotes", "Write true or false"),
    (
        re.compile(r"[-+]?\.(inf|nan)", re.IGNORECASE),
        "be a finite number",
        "Write its digits, or inf where that is a word",
    ),
    (re.compile(r"[-+]?[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?"), "be a plain number", "Write it without colons"),
    (re.compile(r"[-+]?0[xXoObB][0-9a-fA-F_]+"), "be a decimal number", "Write it with the digits 0 to 9"),
    (re.compile(r"[-+]?[0-9.]*[0-9]_[0-9_.]*([eE][-+]?[0-9_]+)?"), "be a plain number", "Write it without '_'"),
    (re.compile(r"[-+]?0[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?"), "be a plain number", "Write it without the leading 0"),
)
PLAIN: Final = re.compile(r"[A-Za-z./][A-Za-z0-9_./:\- ]*")  # what is written without quotes, if it reads as text


@dataclass(frozen=True)
class Place:
    """Where settings come from, for messages.

    Attributes:
        name: Name of the file, or what stands for it.
        folder: Folder that relative paths start from.
        spots: Line and column of each key; empty where there is no file.
    """

    name: str
    folder: Path
    spots: Mapping[KeyPath, Spot] = field(default_factory=dict)

    def at(self, *path: str | int) -> str:
        """Name a key for people, `task.yaml:7:3: objectives.brevity.range`."""
        known = next((path[:length] for length in range(len(path), 0, -1) if path[:length] in self.spots), None)
        spot = "" if known is None else ":{}:{}".format(*self.spots[known])
        return printable_line(f"{self.name}{spot}: {'.'.join(map(str, path))}")

    def resolve(self, path: str) -> Path:
        """Return a path of the settings as an absolute one.

        Raises:
            ConfigError: If it cannot be one, as a home folder of nobody.
        """
        return (self.folder / user_path(path)).resolve()


def read_yaml(file: Path) -> tuple[dict[str, Any], Place]:
    """Read a YAML file that holds a mapping.

    Returns:
        Its content, and the place that names its keys in messages.

    Raises:
        ConfigError: If it is no file, too large, not YAML or not a mapping, or has a value that is not what it looks
            like.
        OSError: If the disk does not give it.
    """
    if file.exists() and not file.is_file():  # a named pipe would be waited for
        raise ConfigError(f"{file} must be a file, got something else of that name. Name a file.")
    with file.open("rb") as stream:
        content = stream.read(MAX_YAML_BYTES + 1)
    if len(content) > MAX_YAML_BYTES:
        raise ConfigError(
            f"{file} must be at most {MAX_YAML_BYTES:,} bytes, the limit of a settings file, got more. Check that it "
            "is one."
        )
    reader = _Reader(str(file))
    data = reader.read(decoded(content, file, ConfigError))
    if not isinstance(data, dict):
        got = "an empty file" if data is None else type(data).__name__
        raise ConfigError(f"{file} must hold keys and values, got {got}. Write them as key: value.")
    return data, Place(str(file), file.resolve().parent, reader.spots)


def read_value(text: str, name: str) -> Any:
    """Read one YAML value, such as that of `--set`.

    Args:
        text: The value.
        name: Opens the message when it is broken.

    Raises:
        ConfigError: If it is not YAML, or not what it looks like.
    """
    if len(text) > MAX_YAML_BYTES:
        raise ConfigError(f"{name} must have at most {MAX_YAML_BYTES:,} characters, got {len(text):,}. Shorten it.")
    return _Reader(name, in_file=False).read(text)


class _Reader:
    """Builds plain data from the parser's events; `spots` takes where each key and item stands."""

    def __init__(self, name: str, in_file: bool = True) -> None:
        self.spots: dict[KeyPath, Spot] = {}
        self._name, self._in_file = name, in_file
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._size = 0
        self._events: Iterator[Any] = iter(())

    def read(self, text: str) -> Any:
        """Return the content of a text, None where there is none."""
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError
        from ruamel.yaml.reader import ReaderError

        self._events = YAML(typ="safe", pure=True).parse(text)
        try:
            next(self._events)  # the stream's start
            if type(next(self._events)).__name__ == "StreamEndEvent":
                return None
            data = self._value(next(self._events), (), 0)
            next(self._events)  # the document's end
            extra = next(self._events)
        except ReaderError as error:
            before = text[: error.position].rpartition("\n")
            spot = (before[0].count("\n") + bool(before[1]) + 1, len(before[2]) + 1)
            got = printable_line(chr(error.character))
            self._refuse(spot, (), "be text without control characters", got, "Remove it.")
        except YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = None if mark is None else (mark.line + 1, mark.column + 1)
            problem = printable_line(str(getattr(error, "problem", None) or error).partition("\n")[0])
            self._refuse(where, (), "be YAML", f"an error: {problem}", "Correct it.")
        if type(extra).__name__ != "StreamEndEvent":
            self._refuse(_spot(extra), (), "hold one document", "another after ---", "Remove one.")
        return data

    def _refuse(self, spot: Spot | None, path: KeyPath, rule: str, got: object, advice: str) -> NoReturn:
        where = self._name if spot is None or not self._in_file else "{}:{}:{}".format(self._name, *spot)
        named = f"{': ' if self._in_file else '.'}{'.'.join(map(str, path))}" if path else ""
        raise ConfigError(f"{printable_line(where + named)} must {rule}, got {got}. {advice}")

    def _value(self, event: Any, path: KeyPath, depth: int) -> Any:
        kind, spot = type(event).__name__, _spot(event)
        if kind == "AliasEvent":
            known, size = self._anchors.get(event.anchor, (None, 0))
            if not size:
                got = f"*{printable_line(str(event.anchor))}"
                self._refuse(spot, path, "name what stands whole above it", got, "Correct the name.")
            self._count(size, spot, path)
            return known
        if getattr(event, "ctag", None) is not None:
            got = printable_line(str(event.ctag).replace("tag:yaml.org,2002:", "!!"))
            self._refuse(spot, path, "have no tag", got, "Remove it: a value is what it looks like.")
        if depth > MAX_NESTING:
            self._refuse(spot, (), f"be nested at most {MAX_NESTING} deep", "more", "Correct the brackets.")
        before = self._size
        if kind == "ScalarEvent":
            self._count(len(event.value) + 1, spot, path)
            value = self._scalar(event, spot, path)
        elif kind == "SequenceStartEvent":
            self._count(1, spot, path)
            value = self._sequence(path, depth)
        else:
            self._count(1, spot, path)
            value = self._mapping(path, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, self._size - before)
        return value

    def _count(self, size: int, spot: Spot, path: KeyPath) -> None:
        self._size += size
        if self._size > MAX_YAML_CHARACTERS:
            rule = f"have at most {MAX_YAML_CHARACTERS:,} characters with its aliases written out"
            self._refuse(spot, (), rule, "more", "Use fewer aliases.")

    def _sequence(self, path: KeyPath, depth: int) -> list[Any]:
        items: list[Any] = []
        while type(event := next(self._events)).__name__ != "SequenceEndEvent":
            here = (*path, len(items))
            self.spots[here] = _spot(event)
            items.append(self._value(event, here, depth + 1))
        return items

    def _mapping(self, path: KeyPath, depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        seen: dict[str, Spot] = {}
        while type(event := next(self._events)).__name__ != "MappingEndEvent":
            spot = _spot(event)
            key = self._key(event, spot, path)
            here = (*path, key)
            if key in seen:
                got = f"it again after line {seen[key][0]}" if self._in_file else "it twice"
                self._refuse(spot, here, "be given once", got, "Remove one.")
            seen[key] = self.spots[here] = spot
            value = self._value(next(self._events), here, depth + 1)
            if key == "<<" and not event.style:
                merged = self._merged(value, spot, here)
            else:
                own[key] = value
        return {**merged, **own}

    def _key(self, event: Any, spot: Spot, path: KeyPath) -> str:
        if type(event).__name__ != "ScalarEvent" or event.ctag is not None:
            self._refuse(spot, path, "have keys that are text", "another kind", "Write key: value.")
        self._count(len(event.value) + 1, spot, path)
        if event.anchor is not None:
            self._anchors[event.anchor] = (event.value, len(event.value) + 1)
        return self._text(event.value, spot, path)

    def _merged(self, value: Any, spot: Spot, path: KeyPath) -> dict[str, Any]:
        parts = value if isinstance(value, list) else [value]
        if not all(isinstance(part, dict) for part in parts):
            self._refuse(spot, path, "name keys and values to take over", "another kind", "Write <<: *name.")
        return {key: each for part in reversed(parts) for key, each in part.items()}

    def _scalar(self, event: Any, spot: Spot, path: KeyPath) -> Any:
        if event.style:  # quoted, or a block of text
            return self._text(event.value, spot, path)
        value = plain_value(event.value)
        if isinstance(value, Refused):
            self._refuse(spot, path, value.rule, _plainly(event.value), value.advice)
        return self._text(value, spot, path) if isinstance(value, str) else value

    def _text(self, text: str, spot: Spot, path: KeyPath) -> str:
        if "\0" in text or not is_writable(text):
            self._refuse(spot, path, "be text without NUL or half a surrogate pair", brief(text), "Remove it.")
        return text


@dataclass(frozen=True)
class Refused:
    """Why a plain value is refused: what it must be, and what to do."""

    rule: str
    advice: str


def plain_value(text: str) -> str | int | float | bool | Refused | None:
    """Return what a value without quotes stands for.

    Example:
        >>> [plain_value(text) for text in ("1e3", "12", "true", "~", "1e", "2024-01-01")]
        [1000.0, 12, True, None, '1e', '2024-01-01']
        >>> plain_value("010").rule
        'be a plain number'
    """
    if text in NULLS:
        return None
    if text in TRUTHS:
        return TRUTHS[text]
    if WHOLE.fullmatch(text):
        if len(text) > 20 or abs(int(text)) > MAX_WHOLE:
            return Refused(f"be at most {MAX_WHOLE}", "Write a smaller one, or quotes around it for text.")
        return int(text)
    if DECIMAL.fullmatch(text):
        value = float(text)
        if math.isinf(value) or (value == 0 and re.search("[1-9]", re.split("[eE]", text)[0])):
            return Refused("be a number that fits 64 bits", "Write one nearer to 1, or quotes around it for text.")
        return value
    for pattern, rule, advice in OTHERWISE:
        if pattern.fullmatch(text):
            return Refused(rule, f"{advice}, or quotes around it for text.")
    return text


def to_yaml(data: object) -> str:
    """Write plain data as YAML that `read_yaml` reads as the same, keys in the order given.

    Raises:
        ConfigError: If something is neither a number, text, a list nor a mapping, or is nested too deep.
    """
    return "".join(f"{line}\n" for line in _lines(data, 0))


def _lines(data: object, depth: int) -> Iterator[str]:
    if depth > MAX_NESTING:
        raise ConfigError(f"settings must be nested at most {MAX_NESTING} deep, got more. Correct them.")
    pad = "  " * depth
    if isinstance(data, Mapping) and data:
        for key, value in data.items():
            name = f"{pad}{_written(str(key))}:"
            if _is_block(value):
                yield name
                yield from _lines(value, depth + 1)
            else:
                yield f"{name} {_written(value)}"
    elif isinstance(data, (list, tuple)) and data:
        for value in data:
            if _is_block(value):
                first, *rest = _lines(value, depth + 1)
                yield f"{pad}- {first.lstrip()}"
                yield from rest
            else:
                yield f"{pad}- {_written(value)}"
    else:
        yield f"{pad}{_written(data)}"


def _is_block(value: object) -> bool:
    return isinstance(value, (Mapping, list, tuple)) and bool(value)


def _written(value: object) -> str:
    if value is None or isinstance(value, (bool, int)):
        return json.dumps(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else {math.inf: ".inf", -math.inf: "-.inf"}.get(value, ".nan")
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, (list, tuple)):
        return "[]"
    if not isinstance(value, str):
        raise ConfigError(
            f"settings must be numbers, text, lists and mappings, got {type(value).__name__} {brief(value)}. "
            "Convert it."
        )
    if PLAIN.fullmatch(value) and not value.endswith((" ", ":")) and ": " not in value and plain_value(value) == value:
        return value
    quoted = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\x7f")
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in quoted)


def _escaped(letter: str) -> str:
    return f"\\u{ord(letter):04x}" if ord(letter) < 0x10000 else f"\\U{ord(letter):08x}"


def _spot(event: Any) -> Spot:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _plainly(text: str) -> str:
    return printable_line(text) if len(text) <= 60 else brief(text)
