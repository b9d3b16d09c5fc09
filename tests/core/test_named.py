from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from paretune.core.errors import ConfigError, UnknownNameError
from paretune.core.named import make_named


@dataclass(frozen=True)
class Small:
    size: int = 1

    def area(self) -> int:
        return self.size**2


class Plain:
    def area(self) -> int:
        return 0


KNOWN = {"small": f"{__name__}:Small"}


def made(given: Any) -> Any:
    return make_named("shape", given, KNOWN, ("area",), "{kind: small, size: 2}")


def test_a_part_is_named_by_word_by_class_or_with_settings() -> None:
    assert made("small") == made(f"{__name__}:Small") == Small()
    given = {"kind": "small", "size": 3}
    assert made(given) == Small(3)
    assert given == {"kind": "small", "size": 3}  # what a study says stays as it was


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": 3}, r"shape must name its kind, got {'size': 3}\. Write {kind: small, size: 2}, or the name alone"),
        (3.5, "shape must name its kind, got 3.5"),
        (
            {"kind": "small", "sizes": 3},
            "shape.sizes must be one of the settings of small, got 'sizes'. Did you mean 'size'",
        ),
        (f"{__name__}:Plain", r"must be a dataclass, whose fields are its settings, got a plain class\. Put @datacl"),
        ("json:JSONDecoder", "must be a class with area, got one without area"),
    ],
)
def test_what_names_no_part_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        made(given)


def test_a_word_that_is_none_gets_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match=r"shape must be one of module:Class, small, got 'smal'\. Did you mean"):
        made("smal")
