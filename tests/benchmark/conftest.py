"""Studies of `fake_study.py`: with worker processes in a second, in this process in a tenth of one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paretune.benchmark.executors.in_process import InProcess
from paretune.benchmark.executors.processes import LocalProcesses

HERE = Path(__file__).parent
collect_ignore = ["faulty_study.py"]  # no tests, and it imports fake_study, which only the fixtures put in reach


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Make `fake_study` importable here and in workers, and replace what would load torch or write a real report."""
    from paretune.benchmark import measurements, runner

    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("FAKE_TRACE", str(tmp_path / "evaluations.txt"))
    monkeypatch.setitem(measurements.MEASUREMENTS, "timing", "fake_study:FakeTiming")
    import fake_study

    monkeypatch.setattr(runner, "write_report", fake_study.write_report)


@pytest.fixture
def fakes_here(fakes: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the jobs of fake studies in this process."""
    import fake_study

    from paretune.benchmark import runner

    monkeypatch.setattr(runner, "LocalProcesses", lambda folder, threads: InProcess(1))
    for name, module in fake_study.stand_ins().items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def worker_processes(fakes_here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the jobs of fake studies in worker processes after all: what is tested is that they are."""
    from paretune.benchmark import runner

    monkeypatch.setattr(runner, "LocalProcesses", LocalProcesses)


@pytest.fixture
def study(fakes_here: None) -> Callable[..., dict[str, Any]]:
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
