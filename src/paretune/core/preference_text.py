"""A preference as text in front of a prompt: what a policy reads that is told in words what it is asked for."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray

TENTHS = 10
DECIMALS = tuple(f"{tenth / TENTHS:.1f}" for tenth in range(TENTHS + 1))


@dataclass(frozen=True)
class PreferenceText:
    """How a preference is written.

    Attributes:
        objectives: Names of the K objectives.
        text: What stands in front of the prompt; `{preference}` is replaced by the pairs.
        pair: One objective and its weight, `{name}` and `{number}`.
        between: What separates pairs.
        numerals: Words for the weights 0, 0.1, ..., 1; by default these decimals.
    """

    objectives: tuple[str, ...]
    text: str = "[{preference}] "
    pair: str = "{name} {number}"
    between: str = ", "
    numerals: tuple[str, ...] = DECIMALS

    def __post_init__(self) -> None:
        for name in ("objectives", "numerals"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if "{preference}" not in self.text or "{number}" not in self.pair:
            raise ConfigError(
                f"text must hold {{preference}} and pair {{number}}, got '{self.text}' and '{self.pair}'. Write both, "
                "or the policy is not told what is preferred."
            )
        if len(self.numerals) != TENTHS + 1 or len(set(self.numerals)) != TENTHS + 1:
            raise ConfigError(
                f"numerals must be {TENTHS + 1} different words, for 0, 0.1 and so on to 1, got {len(self.numerals)} "
                f"of which {len(set(self.numerals))} differ. Leave them out for decimals."
            )

    def of(self, preference: FloatArray) -> str:
        """Return the text of a preference `[K]`, each weight to the nearest tenth, of sum 1.

        Example:
            >>> PreferenceText(("reflection", "brevity")).of(np.asarray([0.68, 0.32]))
            '[reflection 0.7, brevity 0.3] '
        """
        tenths = (in_tenths(preference[None])[0] * TENTHS).round().astype(int)
        pairs = (
            self.pair.replace("{name}", name).replace("{number}", self.numerals[tenth])
            for name, tenth in zip(self.objectives, tenths, strict=True)
        )
        return self.text.replace("{preference}", self.between.join(pairs))

    def all(self) -> list[str]:
        """Return a text for each tenth of each objective, the rest on the next one: all words that there are."""
        size, found = len(self.objectives), []
        for place in range(size):
            for tenth in range(TENTHS + 1):
                row = np.zeros(size)
                row[(place + 1) % size] += 1 - tenth / TENTHS
                row[place] += tenth / TENTHS
                found.append(self.of(row))
        return list(dict.fromkeys(found))

    def plain(self) -> dict[str, object]:
        """Return plain data for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def in_tenths(preferences: FloatArray) -> FloatArray:
    """Return the nearest preferences `[M, K]` whose weights are whole tenths: largest remainders are rounded up.

    Example:
        >>> in_tenths(np.asarray([[0.68, 0.32], [1 / 3, 2 / 3]])).tolist()
        [[0.7, 0.3], [0.3, 0.7]]
    """
    scaled = (preferences * TENTHS).round(9)
    whole = np.floor(scaled)
    left = (TENTHS - whole.sum(axis=1)).round().astype(int)
    ranks = np.argsort(
        np.argsort(whole - scaled, axis=1, kind="stable"), axis=1, kind="stable"
    )  # 0 is rounded up first
    return np.asarray((whole + (ranks < left[:, None])) / TENTHS)
