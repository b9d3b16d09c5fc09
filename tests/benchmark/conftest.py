"""Studies of `fake_study.py`, run with worker processes in a second."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Make `fake_study` importable here and in workers, and replace what would load torch or write a real report."""
    from paretune.benchmark import runner, scheduling

    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("FAKE_TRACE", str(tmp_path / "evaluations.txt"))
    monkeypatch.setitem(scheduling.JOBS, "time", "fake_study:time_methods")
    import fake_study

    monkeypatch.setattr(runner, "write_report", fake_study.write_report)


@pytest.fixture
def study(fakes: None) -> Callable[..., dict[str, Any]]:
    """Return a function that makes a study of the fake task and method; keys of the study may be replaced."""

    def make(settings: dict[str, object] | None = None, **keys: object) -> dict[str, Any]:
        return {
            "name": "fakes",
            "tasks": ["fake_study:task"],
            "methods": {"fake": {"method": "fake_study:Fake", **(settings or {})}},
            "budget": {"completions": 64},
            "seeds": 2,
            "preferences": {"grid": 2, "unseen": 1},
            "workers": 2,
            **keys,
        }

    return make
