from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest

from paretune.core.errors import ConfigError, UnknownNameError
from paretune.methods import METHODS, resolve_method


def test_a_method_is_found_by_its_name_or_its_class() -> None:
    for name, path in METHODS.items():
        assert resolve_method(name).name == name
        assert resolve_method(path) is resolve_method(name)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_writes_no_header_and_no_constructor_of_its_own(name: str) -> None:
    source = inspect.getsource(resolve_method(name))
    assert source.startswith("@method(")
    assert "ClassVar" not in source
    assert "def __init__" not in source


def test_an_unknown_method_is_refused_with_the_closest() -> None:
    with pytest.raises(UnknownNameError, match=r"method must be one of .*got 'liner'\. Did you mean 'linear'"):
        resolve_method("liner")


@pytest.mark.parametrize("name", ["no_such_module:Method", "paretune.methods.experts:NoSuchClass", ":Method", "json:"])
def test_a_class_that_cannot_be_imported_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="method must be an importable 'module:name', got"):
        resolve_method(name)


def test_a_class_that_is_no_method_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_a_method.py").write_text("class Half:\n    name = 'half'\n    family = 'meta-policy'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="got one without version, Settings, stages, assemble"):
        resolve_method("half_a_method:Half")
    sys.modules.pop("half_a_method", None)


@pytest.mark.parametrize(
    ("text", "fault"), [("class Mine(:", "SyntaxError: "), ("1 / 0", "ZeroDivisionError: division")]
)
def test_a_module_that_fails_is_named(text: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_an_idea.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=f"module of method 'half_an_idea:Mine' must be importable, got {fault}"):
        resolve_method("half_an_idea:Mine")
