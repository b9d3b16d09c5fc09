"""Values as they are typed on a command line."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paretune.benchmark.progress import LINE_SECONDS
from paretune.cli.printing import complain
from paretune.core.answers import Answer, Nearest
from paretune.core.checks import yaml_value
from paretune.core.errors import ConfigError, PreferenceError
from paretune.core.limits import MAX_NESTING
from paretune.core.preferences import FloatArray, preference_label
from paretune.core.printable import brief
from paretune.core.settings import Written
from paretune.executors.cores import cores
from paretune.executors.jobs import Link
from paretune.methods import check_method_name
from paretune.methods.entries import method_entry
from paretune.records.choices import Choice, load_choice
from paretune.records.study import StudyRecords
from paretune.tasks.strict_yaml import plain_value, read_value

PREFERENCE = re.compile(r"\s*[A-Za-z][\w-]*\s*=\s*[\d.]+\s*(,.*=.*)?")


def parse_preference(text: str) -> Mapping[str, float]:
    """Read `empathy=0.7,brevity=0.3`, or the file that `@choice.json` names.

    Raises:
        PreferenceError: If a part is not a name and a number, or a name is given twice.
        RecordError: If the file cannot be read.
        ConfigError: If it holds no choice and no weights.
    """
    if text.startswith("@"):
        return load_choice(text[1:])
    preference: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name in preference:
            raise PreferenceError(f"preference must name each objective once, got '{name}' twice. Remove one.")
        number = plain_value(value)
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise PreferenceError(
                f"preference must read name=number,name=number, got {brief(part.strip())}. Write "
                "empathy=0.7,brevity=0.3."
            )
        preference[name] = float(number)
    return preference


def given(folder: Path, preference: str | None, prompts: Sequence[str]) -> tuple[str, list[str]]:
    """Return preference and prompts as they were typed.

    Raises:
        ConfigError: If one of them was left out, or the preference was typed without its option.
    """
    command = f"paretune generate {folder}"
    if preference is None:
        typed = next((prompt for prompt in prompts if PREFERENCE.fullmatch(prompt)), None)
        got = "none" if typed is None else f"'{typed}' without --preference"
        advice = f'Write {command} --preference {typed or "empathy=0.7,brevity=0.3"} "PROMPT".'
        raise ConfigError(f"preference must be given as --preference name=number,name=number, got {got}. {advice}")
    if not prompts:
        raise ConfigError(f'prompts must be one or more, got none. Write {command} --preference {preference} "PROMPT".')
    return preference, list(prompts)


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Read `learning_rate=0.001` and `gate.level=block`; values are YAML.

    Raises:
        ConfigError: If a pair has no `=`, or a value is not YAML.
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        path, separator, text = pair.partition("=")
        if not separator or not path:
            raise ConfigError(f"--set must be given key=value, got '{pair}'. Write --set learning_rate=0.001.")
        value = read_value(text, f"--set {path}")
        *parents, name = parts = path.split(".")
        if not all(parts) or len(parts) > MAX_NESTING:
            raise ConfigError(f"--set must name a setting, dots for nested ones, got {brief(path)}. Correct it.")
        place = settings
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ConfigError(f"--set {path} must not go below a value, got '{parent}' set before. Remove one.")
        if name in place:
            raise ConfigError(f"--set {path} must be given once, got it twice. Remove one.")
        place[name] = value
    return settings


def check_settings(method: str, settings: Mapping[str, Any]) -> None:
    """Refuse settings of a method as `--set` gave them, and say how to type them right.

    Raises:
        ConfigError: If the method, a setting or a value breaks its rule.
    """
    check_method_name(method)
    typed = Written(
        at=lambda *keys: f"--set {'.'.join(map(str, keys))}" if keys else "train",
        line=lambda keys, value: f"--set {'.'.join(keys)}={yaml_value(value)}",
    )
    method_entry(method, settings, typed)


def check_sampling(temperature: float, top_p: float) -> None:
    """Check what decoding is asked for.

    Raises:
        ConfigError: If a number is out of its range.
    """
    if not 0 < temperature < float("inf"):
        raise ConfigError(f"--temperature must be above 0, got {temperature:g}. 1 samples as trained.")
    if not 0 < top_p <= 1:
        raise ConfigError(f"--top-p must lie above 0 and at most at 1, got {top_p:g}. 1 keeps every token.")


def stand_in(answer: Answer, objectives: Sequence[str], preference: FloatArray) -> str:
    """Say for whom the policy was trained that answers a preference without one of its own; else an empty string.

    Args:
        answer: Of a solution set; where it picks by design or mixes, no policy is anybody's own, and nothing is said.
        objectives: Names of the K objectives.
        preference: `[K]`.
    """
    if not isinstance(answer, Nearest):
        return ""
    weights, (word,) = answer.weights(preference[None])
    if word not in ("nearest", "estimated"):
        return ""
    rows = (preference, answer.trained[int(weights[0].argmax())])
    labels = [[preference_label(row, objectives, digits) for row in rows] for digits in (2, 4, 6)]
    wanted, trained = next((each for each in labels if each[0] != each[1]), labels[-1])  # the first to tell them apart
    return f"note: no policy was trained for {wanted}: answered by the one for {trained} ({word})"


def chosen_elsewhere(preference: Mapping[str, float], method: str) -> str:
    """Say that a saved choice was made among the policies of another method; else an empty string."""
    if not isinstance(preference, Choice) or preference.method in ("", method):
        return ""
    return f"note: this preference was chosen among policies of '{preference.method}'; these are of '{method}'"


def import_folders(study: StudyRecords | None) -> list[str]:
    """Return where the modules of a user may lie that a study or a solution set names: beside the study, and here."""
    beside = None if study is None else study.resolved.get("folder")
    return [*([str(beside)] if beside is not None else []), os.getcwd()]


class LineLink(Link):
    """Prints how many completions have been made, every ten seconds, on stderr."""

    def __init__(self, budget: int) -> None:
        super().__init__(self._hear, lambda: False, cores())
        self._budget = budget
        self._made = 0
        self._shown = self._started = time.monotonic()

    def _hear(self, message: Mapping[str, object]) -> None:
        if message["kind"] != "progress":
            return
        self._made += int(str(message["completions"]))
        now = time.monotonic()
        if now - self._shown >= LINE_SECONDS:
            self._shown = now
            rate = self._made / (now - self._started)
            complain(f"{self._made:,} of up to {self._budget:,} completions, {rate:,.0f} samples/s")
