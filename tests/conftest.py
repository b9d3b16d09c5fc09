"""What every test relies on: one thread a process, no download, a cache of its own, the same random examples."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

import real_studies
from paretune.core.user_folders import FolderFinder
from paretune.executors.in_process import InProcess
from paretune.executors.processes import LocalProcesses

HERE = Path(__file__).parent
ROOT = Path(__file__).resolve().parents[1]
collect_ignore = ["faulty_study.py"]  # no tests, and it imports fake_study

# Set before any test module imports torch; `make test` sets the same, this is for a bare `pytest`.
for _name, _value in {
    "OMP_NUM_THREADS": "1",  # two test processes share two cores, and sums repeat bit by bit
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",  # a test that would download fails instead
    "HF_DATASETS_OFFLINE": "1",
    "MPLBACKEND": "Agg",
    "PARETUNE_NO_MEASURING": "1",  # a plan takes no seconds to find out how fast this machine is
}.items():
    os.environ.setdefault(_name, _value)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a job in the background inherits it
    signal.signal(signal.SIGINT, signal.default_int_handler)

# derandomized: a red run is red again; no deadline: the first example of a test may import torch
hypothesis.settings.register_profile("paretune", derandomize=True, deadline=None, max_examples=50, database=None)
hypothesis.settings.load_profile("paretune")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no GPU found")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep instances of controlled tasks out of the user's folders, and those of another version out of the tests."""
    folder = real_studies.of_all_workers(tmp_path_factory)  # an instance is drawn once
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARETUNE_CACHE", str(folder / "cache"))
        yield folder / "cache"


@pytest.fixture(autouse=True)
def own_folders() -> Iterator[None]:
    """Look for users' modules, after a test, where they were looked for before it, and forget those it found.

    A study in no file is the current folder's: that is the repository, whose modules stay.
    """
    before = list(sys.meta_path)
    yield
    added = [each for each in sys.meta_path if each not in before and isinstance(each, FolderFinder)]
    if added:
        sys.meta_path[:] = [each for each in sys.meta_path if each not in added]
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if file and not Path(file).is_relative_to(ROOT) and any(each.holds(file) for each in added):
                del sys.modules[name]


@pytest.fixture(scope="session", autouse=True)
def one_core() -> Iterator[None]:
    """Let training in a test process find one core, as its environment says.

    Training sets the threads of torch for all tests that follow, and threads that wait for a core of a busy machine do
    so at full speed: small models then take 25 times as long.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda process: {0}, raising=False)
        yield


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Data and models beside the repository, which are not part of a clone."""
    folder = Path(os.environ.get("PARETUNE_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"needs real data and models in {folder} (or in PARETUNE_SHARED)")
    return folder


@pytest.fixture
def in_one_process() -> Iterator[None]:
    """Run real studies in this process, untimed, and their reports without figures; see `real_studies`."""
    with real_studies.in_this_process():
        yield


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the static figures out of reports that are written in this process."""
    real_studies.without_figures(monkeypatch)


@pytest.fixture
def only_what_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the rows that stand in every study, which tests/benchmark/test_standing.py has: cells are counted."""
    monkeypatch.setattr("paretune.benchmark.study.with_standing_rows", lambda methods, place: dict(methods))


@pytest.fixture
def fakes(no_figures: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Make `fake_study` importable here and in workers, and replace what would load torch or write a real report."""
    from paretune.benchmark import runner

    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("FAKE_TRACE", str(tmp_path / "evaluations.txt"))
    import fake_study

    fake_study.stand_in(monkeypatch)
    monkeypatch.setattr(runner, "measure_all", lambda records: None)  # the summary asks for itself, where one is made


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
