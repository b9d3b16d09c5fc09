from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import pytest

from paretune.core.errors import ConfigError, StopRequested
from paretune.core.imports import import_name
from paretune.core.user_folders import look_in


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


@pytest.mark.parametrize(
    ("body", "got"),
    [
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("exit()", "SystemExit"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("None.x", "AttributeError: 'NoneType' object has no attribute 'x'"),
        ("import nothing_of_the_kind", "ModuleNotFoundError: No module named 'nothing_of_the_kind'"),
    ],
)
def test_whatever_a_module_does_at_import_is_one_error_with_its_line(tmp_path: Path, body: str, got: str) -> None:
    (tmp_path / "fails_at_import.py").write_text(f"import os\nos.chdir('/')\n{body}\ndef f(): ...\n")
    finders, folder = list(sys.meta_path), os.getcwd()
    look_in(tmp_path)
    message = (
        rf"module of answer 'fails_at_import:f' must be importable, got {got}.* \(fails_at_import\.py, line 3\)\. "
    )
    try:
        with pytest.raises(ConfigError, match=message):
            import_name("answer", "fails_at_import:f")
    finally:
        sys.meta_path[:] = finders
    assert os.getcwd() == folder


def test_a_real_interrupt_during_an_import_stops(tmp_path: Path) -> None:
    (tmp_path / "is_interrupted.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nx = [*range(9)]\n"
    )
    finders = list(sys.meta_path)
    look_in(tmp_path)
    try:
        with pytest.raises(StopRequested):
            import_name("answer", "is_interrupted:f")
    finally:
        sys.meta_path[:] = finders
