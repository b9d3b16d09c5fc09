"""The settings of a controlled task, checked."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Final

from paretune.core.errors import TaskError

LIMIT = 32_768  # completions a prompt may have: 8 letters, length 5; scoring a policy takes time in proportion
PROMPTS_EACH = 16  # of each split
PROMPT_LETTERS = 4
LETTERS = "abcdefghijklmnop"
NAMES = ("first", "second", "third", "fourth", "fifth")
FAMILY_SETTINGS: Final[dict[str, tuple[type[int] | type[float], str]]] = {
    "rho": (float, "rho"), "heterogeneity": (float, "h"), "objectives": (int, "k"), "alphabet": (int, "a"),
    "length": (int, "l"), "context": (float, "c"),
}  # fmt: skip
"""Settings that name a family of instances: their type, and their short form in a task's name."""
NUMBER = r"\d+(?:\.\d+)?(?:e-?\d+)?"
NAME = re.compile(
    rf"controlled-rho(?P<rho>[+-]{NUMBER})(?:-h(?P<heterogeneity>{NUMBER}))?"
    rf"(?:-k(?P<objectives>\d+))?(?:-a(?P<alphabet>\d+))?(?:-l(?P<length>\d+))?(?:-c(?P<context>{NUMBER}))?"
)
MOST_CONTEXT = 1.0  # beyond, wishes lie at the corners on most prompts; docs/controlled.md
GENERATOR_VERSION = 1  # part of every instance's key: raise it when equal settings give another task


@dataclass(frozen=True)
class ControlledSettings:
    """What makes a controlled task.

    Attributes:
        rho: Rank correlation of any two objectives under the base model, within prompts.
        heterogeneity: Share of the rewards' variance that depends on features of the prompt.
        objectives: Number of objectives K.
        alphabet: Number of letters A.
        length: Letters of a completion L; there are A^L completions.
        seed: Which instance.
        context: How much what a user wants depends on the prompt, see `prompt_preferences`; 0 is not at all.
    """

    rho: float = 0.0
    heterogeneity: float = 0.1
    objectives: int = 2
    alphabet: int = 8
    length: int = 4
    seed: int = 0
    context: float = 0.0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("objectives", 2, len(NAMES)), ("alphabet", 3, len(LETTERS)), ("length", 1, 6),
        ):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise TaskError(
                    f"{name} of a controlled task must be a whole number from {low} to {high}, got {value!r}. "
                    "Correct it."
                )
        for name in ("rho", "heterogeneity", "context"):
            if isinstance(getattr(self, name), bool) or not isinstance(getattr(self, name), (int, float)):
                raise TaskError(
                    f"{name} of a controlled task must be a number, got {getattr(self, name)!r}. Write one, like 0.2."
                )
        lowest = -1 / (self.objectives - 1)
        if not lowest - 1e-9 <= self.rho <= 1:
            raise TaskError(
                f"rho of a controlled task must be between {lowest:.3g} and 1, got {self.rho}. {self.objectives} "
                f"objectives cannot all be correlated more negatively than -1/(K-1). Choose a value in this range."
            )
        if not 0 <= self.heterogeneity <= 1:
            raise TaskError(
                f"heterogeneity of a controlled task must be between 0 and 1, got {self.heterogeneity}. "
                "It is a share of variance."
            )
        if not 0 <= self.context <= MOST_CONTEXT:
            raise TaskError(
                f"context of a controlled task must be between 0 and {MOST_CONTEXT:g}, got {self.context}. Write 0 "
                "where what users want does not depend on the prompt."
            )
        if self.completions > LIMIT:
            raise TaskError(
                f"alphabet and length of a controlled task must give at most {LIMIT:,} completions, got "
                f"{self.alphabet}^{self.length} = {self.completions:,}. Lower one of them."
            )
        if self.completions <= self.objectives:  # fields of mean 0 over Y completions span Y - 1 dimensions
            raise TaskError(
                f"alphabet and length of a controlled task must give more completions than objectives, got "
                f"{self.completions} for {self.objectives}. Raise one of them, or ask for fewer objectives."
            )

    @property
    def completions(self) -> int:
        """Number of completions of a prompt, A^L."""
        return int(self.alphabet**self.length)

    @property
    def prompt_letters(self) -> int:
        """Letters a prompt may be made of: few, so that what 16 prompts teach carries over to others."""
        return min(self.alphabet, PROMPT_LETTERS)

    @property
    def prompt_length(self) -> int:
        """Letters of a prompt: as many as give twice the prompts that are drawn, their order not counted."""
        length = 1
        while math.comb(self.prompt_letters + length - 1, length) < 2 * 3 * PROMPTS_EACH:
            length += 1
        return length

    @property
    def family(self) -> dict[str, int | float]:
        """Settings that name the family of instances; the context where there is one."""
        named = {name: getattr(self, name) for name in FAMILY_SETTINGS}
        return {name: value for name, value in named.items() if name != "context" or value}

    @property
    def name(self) -> str:
        """Name of the task, the same for all its instances."""
        parts = [f"controlled-rho{'-' if self.rho < 0 else '+'}{_digits(abs(self.rho))}"]
        for setting, (_, short) in FAMILY_SETTINGS.items():
            value = getattr(self, setting)
            if setting != "rho" and value != getattr(ControlledSettings, setting):
                parts.append(f"{short}{_digits(value)}")
        return "-".join(parts)

    @staticmethod
    def from_name(name: str) -> ControlledSettings | None:
        """Return instance 0 of the task of a `name`, or None where it is no such name.

        Example:
            >>> ControlledSettings.from_name("controlled-rho-0.8-l3").name
            'controlled-rho-0.8-l3'
        """
        found = NAME.fullmatch(name)
        if found is None:
            return None
        chosen: dict[str, Any] = {
            setting: number(found[setting])
            for setting, (number, _) in FAMILY_SETTINGS.items()
            if found[setting] is not None
        }
        return ControlledSettings(**chosen)

    def text(self) -> str:
        """Return what an instance is drawn from as text, from which `from_text` makes them again."""
        return json.dumps(self.plain(), sort_keys=True)

    @staticmethod
    @lru_cache(maxsize=256)
    def from_text(text: str) -> ControlledSettings:
        """Make settings from `text`.

        Raises:
            TaskError: If it was written by another version of the generator.
        """
        plain = json.loads(text)
        if plain.pop("generator") != GENERATOR_VERSION:
            raise TaskError(
                f"instance must be drawn by version {GENERATOR_VERSION} of the generator, got {text}. Use the version "
                "of the library that made it."
            )
        return ControlledSettings(**plain)

    def plain(self) -> dict[str, object]:
        """Return what an instance is drawn from as plain data, the generator's version included.

        The context is none of it: model, prompts and rewards are those of context 0.
        """
        floats = {"rho": float(self.rho) + 0.0, "heterogeneity": float(self.heterogeneity) + 0.0}  # -0.0 is 0
        drawn = {name: value for name, value in asdict(self).items() if name != "context"}
        return {**drawn, **floats, "generator": GENERATOR_VERSION}


def _digits(value: float) -> str:
    """Write a number as short as it can be read back from."""
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value))
