"""A choice: the preference somebody has settled on, as a small JSON file that a report and a command can write.

    {"schema_version": 1, "kind": "paretune choice", "objectives": {"empathy": 0.7, "brevity": 0.3}, "mode": "weights",
     "study": "quick", "task": "counselling", "method": "rewarded_soups"}

Beside these, `aspirations` (objective -> least score wished for), `made` (when, ISO 8601), `cell` (of the study),
`inferred` (what was concluded from answers) and `answers` (the questions and replies) may stand. A file of weights
alone, `{"empathy": 0.7, "brevity": 0.3}`, is a choice too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, get_args

from paretune.core.checks import did_you_mean, user_path
from paretune.core.disk_errors import disk_errors
from paretune.core.errors import ConfigError
from paretune.core.limits import MAX_YAML_BYTES
from paretune.core.preferences import preference_from_mapping
from paretune.core.printable import brief
from paretune.core.text_files import decoded
from paretune.records.files import write_json

SCHEMA, KIND = 1, "paretune choice"
Mode = Literal["weights", "aspirations", "pairwise"]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)
REQUIRED: Final = ("schema_version", "kind", "objectives", "mode", "study", "task", "method")
LONG: Final = 19  # digits of a whole number; Python's own has no end, or one that no message explains
OPTIONAL: Final = ("aspirations", "made", "cell", "inferred", "answers")


@dataclass(frozen=True)
class Choice(Mapping[str, float]):
    """A preference by names, and where it comes from. Wherever a mapping of weights is taken, a choice is.

    Attributes:
        objectives: Objective -> weight, shares or ratios; those left out count 0.
        mode: How it was made: with `weights`, with `aspirations`, or by comparing two policies at a time, `pairwise`.
        study: Name of the study it was made in; empty, as the next two, for a file of weights alone.
        task: Task.
        method: Label of the method whose policies were chosen from.
        aspirations: Objective -> least score wished for.
        made: When, ISO 8601.
        cell: The cell of the study whose policies were compared.
        inferred: What was concluded from answers: `preference`, `low` and `high` (objective -> weight, the ends of 95 %
            intervals) and `expected_regret`.
        answers: Questions in order: `a` and `b`, the preferences that the two policies answer, and the `reply`, `a`,
            `b` or `=`.
    """

    objectives: Mapping[str, float]
    mode: Mode = "weights"
    study: str = ""
    task: str = ""
    method: str = ""
    aspirations: Mapping[str, float] = field(default_factory=dict)
    made: str = ""
    cell: str = ""
    inferred: Mapping[str, Any] = field(default_factory=dict)
    answers: Sequence[Mapping[str, Any]] = ()

    def __getitem__(self, name: str) -> float:
        return self.objectives[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.objectives)

    def __len__(self) -> int:
        return len(self.objectives)

    def plain(self) -> dict[str, Any]:
        """Return plain data for JSON; what is optional and empty is left out."""
        named = {"schema_version": SCHEMA, "kind": KIND, **{name: getattr(self, name) for name in REQUIRED[2:]}}
        return {**named, **{name: value for name in OPTIONAL if (value := getattr(self, name))}}


def write_choice(path: Path, choice: Choice) -> None:
    """Write a choice in one step.

    Raises:
        RecordError: If the disk is full or the folder cannot be written; the former file is still there then.
    """
    write_json(path, choice.plain())


def load_choice(path: str | Path) -> Choice:
    """Read a choice, or a file of weights alone.

    Args:
        path: What the report or `paretune elicit` saved, or JSON such as `{"empathy": 0.7, "brevity": 0.3}`.

    Raises:
        RecordError: If the file cannot be read.
        ConfigError: If it is no JSON, or breaks the schema.
        PreferenceError: If its weights are no preference.
    """
    file = user_path(path)
    data = _read(file)
    if not isinstance(data, dict):
        raise ConfigError(
            f"{file} must be a choice, or weights by objective, got {_kind(data)}. Write "
            '{"empathy": 0.7, "brevity": 0.3}.'
        )
    if "kind" not in data and "schema_version" not in data:
        return Choice(_weights(file, "weights", data))
    _check_keys(file, data)
    for name in ("study", "task", "method", "made", "cell"):
        if name in data and not isinstance(data[name], str):
            raise ConfigError(f"{file}: {name} must be text, got {_kind(data[name])}. Save the choice again.")
    if data["mode"] not in MODES:
        guess = did_you_mean(data["mode"], MODES) if isinstance(data["mode"], str) else ""
        raise ConfigError(f"{file}: mode must be one of {', '.join(MODES)}, got {brief(data['mode'])}.{guess}")
    if data["mode"] == "aspirations" and "aspirations" not in data:
        raise ConfigError(f"{file}: aspirations must be there in mode aspirations, got none. Save the choice again.")
    if data.get("made"):
        _check_time(file, data["made"])
    return Choice(
        _weights(file, "objectives", data["objectives"]),
        data["mode"],
        data["study"],
        data["task"],
        data["method"],
        _numbers(file, "aspirations", data.get("aspirations", {})),
        data.get("made", ""),
        data.get("cell", ""),
        _inferred(file, data.get("inferred", {})),
        _answers(file, data.get("answers", [])),
    )


def _read(file: Path) -> Any:
    with disk_errors(file), file.open("rb") as stream:
        content = stream.read(MAX_YAML_BYTES + 1)
    if len(content) > MAX_YAML_BYTES:
        raise ConfigError(
            f"{file} must be at most {MAX_YAML_BYTES:,} bytes, the limit of a settings file, got more. Check that it "
            "is a choice."
        )
    try:
        text = decoded(content, file, ConfigError)
        return json.loads(text, object_pairs_hook=lambda pairs: _once(file, pairs), parse_int=_whole)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{file}:{error.lineno} must hold JSON, got trouble at character {error.colno} ({error.msg}). Save the "
            "choice again."
        ) from error
    except RecursionError as error:
        raise ConfigError(f"{file} must hold a choice, got lists within lists beyond what can be read.") from error


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) < LONG else float(digits)  # which is not finite where no number of ours is


def _once(file: Path, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{file} must name each key once, got {brief(name)} twice. Remove one.")
    return dict(pairs)


def _check_keys(file: Path, data: Mapping[str, Any]) -> None:
    version, kind = data.get("schema_version"), data.get("kind")
    if kind != KIND:
        raise ConfigError(f"{file}: kind must be '{KIND}', got {brief(kind)}. Name a choice, or a file of weights.")
    if version != SCHEMA or isinstance(version, bool):
        raise ConfigError(
            f"{file}: schema_version must be {SCHEMA}, got {brief(version)}. Use the paretune that wrote it."
        )
    for name in data:
        if name not in (*REQUIRED, *OPTIONAL):
            guess = did_you_mean(name, (*REQUIRED, *OPTIONAL)) or " Remove it."
            raise ConfigError(f"{file} must have keys of a choice only, got {brief(name)}.{guess}")
    for name in REQUIRED:
        if name not in data:
            raise ConfigError(f"{file} must have {name}, got none. Save the choice again, or keep its weights alone.")


def _numbers(file: Path, name: str, value: object) -> dict[str, float]:
    """Return numbers by name, each finite."""
    if not isinstance(value, dict):
        raise ConfigError(f"{file}: {name} must be numbers by objective, got {_kind(value)}. Save the choice again.")
    for objective, number in value.items():
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
            raise ConfigError(
                f"{file}: {name} of {brief(objective)} must be a finite number, got {brief(number)}. Correct it."
            )
    return {objective: float(number) for objective, number in value.items()}


def _weights(file: Path, name: str, value: object) -> dict[str, float]:
    found = _numbers(file, name, value)
    if not found:
        raise ConfigError(f"{file}: {name} must name an objective, got none. Give one a weight.")
    preference_from_mapping(found, tuple(found))  # none negative, one above 0
    return found


def _inferred(file: Path, value: object) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() - {"preference", "low", "high", "expected_regret"}:
        got = ", ".join(value) if isinstance(value, dict) else _kind(value)
        raise ConfigError(
            f"{file}: inferred must have preference, low, high and expected_regret, got {brief(got)}. Save the choice "
            "again."
        )
    alone = {name: each for name, each in value.items() if name == "expected_regret"}
    weights = {name: _numbers(file, f"inferred {name}", each) for name, each in value.items() if name not in alone}
    return {**weights, **_numbers(file, "inferred", alone)}


def _answers(file: Path, value: object) -> tuple[dict[str, Any], ...]:
    entries: list[Any] = value if isinstance(value, list) else [value]
    for entry in entries:
        if not isinstance(entry, dict) or entry.keys() != {"a", "b", "reply"} or entry["reply"] not in ("a", "b", "="):
            raise ConfigError(
                f"{file}: answers must each have a, b and a reply, one of a, b and =, got {brief(entry)}. Save the "
                "choice again."
            )
    return tuple(
        {"reply": entry["reply"], **{side: _weights(file, f"answers {side}", entry[side]) for side in ("a", "b")}}
        for entry in entries
    )


def _check_time(file: Path, text: str) -> None:
    try:
        datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"{file}: made must be a time such as 2026-01-31T12:00:00+00:00, got {brief(text)}. Correct it."
        ) from error


def _kind(value: object) -> str:
    return {list: "a list", dict: "a mapping", str: "text", type(None): "nothing"}.get(type(value), brief(value))
