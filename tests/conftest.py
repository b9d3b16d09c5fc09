"""What every test relies on: one thread a process, no download, a cache of its own, the same random examples."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from paretune.core.user_folders import FolderFinder

ROOT = Path(__file__).resolve().parents[1]

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
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all workers of this run: an instance is drawn once
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARETUNE_CACHE", str(folder / "cache"))
        yield folder / "cache"


@pytest.fixture(autouse=True)
def own_folders() -> Iterator[None]:
    """Look for users' modules, after a test, where they were looked for before it."""
    before = list(sys.meta_path)
    yield
    sys.meta_path[:] = [each for each in sys.meta_path if each in before or not isinstance(each, FolderFinder)]


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
def in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the jobs of studies in this process, which has imported torch, and on its CPU."""
    from paretune.benchmark.executors.in_process import InProcess

    monkeypatch.setattr("paretune.benchmark.runner.LocalProcesses", lambda folder, threads: InProcess(1))
    monkeypatch.setattr("paretune.models.base.default_device", lambda: "cpu")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the system's Chromium, for `playwright`'s `executable_path`."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium found; install it with the system's package manager")
