from __future__ import annotations

import math

import pytest

from paretune.core.errors import ConfigError
from paretune.core.imports import import_name


def test_a_name_is_imported_from_its_module() -> None:
    assert import_name("function", "math:sqrt") is math.sqrt
    assert import_name("class", "paretune.core.ledger:Ledger", ("charge", "restore")).__name__ == "Ledger"


@pytest.mark.parametrize("name", ["math:sqroot", "no_such_module:f", ":f", ".relative:f", "math"])
def test_a_name_that_is_not_there_is_refused_with_its_noun(name: str) -> None:
    with pytest.raises(ConfigError, match=f"shaping must be an importable 'module:name', got '{name}'"):
        import_name("shaping", name)


@pytest.mark.parametrize(
    ("name", "parts", "message"),
    [
        ("math:sqrt", ("weigh",), "must be a class with weigh, got a builtin_function_or_method"),
        ("math:sqrt", ("__call__",), "must be a class with __call__, got a builtin_function_or_method"),
        ("math:pi", (), "must be something to call, got a float"),
        (
            "paretune.core.ledger:Ledger",
            ("charge", "weigh"),
            "must be a class with charge, weigh, got one without weigh",
        ),
    ],
)
def test_what_is_not_what_it_should_be_is_refused(name: str, parts: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"weighting '{name}' {message}.*\. Name another, or complete it\."):
        import_name("weighting", name, parts)
    with pytest.raises(ConfigError, match=rf"{message}.*\. See there\."):
        import_name("weighting", name, parts, "See there.")
