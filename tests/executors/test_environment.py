from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from paretune.executors.cores import cores, worker_threads
from paretune.executors.environment import environment, gpu

INFORMATION = """\
Model: \t\t NVIDIA H200
IRQ:   \t\t 120
GPU UUID: \t GPU-00000000-0000-0000-0000-000000000000
Bus Type: \t PCIe
"""


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not imported torch, where no GPU is hidden and no `nvidia-smi` is found."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", os.devnull)


def driver(folder: Path, *models: str) -> Path:
    for index, model in enumerate(models):
        gpu_folder = folder / f"0000:{index:02x}:00.0"
        gpu_folder.mkdir(parents=True)
        (gpu_folder / "information").write_text(INFORMATION.replace("NVIDIA H200", model), encoding="utf-8")
    return folder


@pytest.mark.usefixtures("no_torch")
def test_a_gpu_is_named_by_the_driver_before_torch_is_imported(tmp_path: Path) -> None:
    assert gpu(driver(tmp_path, "NVIDIA H200", "NVIDIA T400")) == "NVIDIA H200"
    assert "torch" not in sys.modules


@pytest.mark.usefixtures("no_torch")
def test_a_machine_without_driver_has_no_gpu(tmp_path: Path) -> None:
    assert gpu(tmp_path / "gpus") == ""


@pytest.mark.usefixtures("no_torch")
@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_gpu_hidden_from_torch_is_not_named(hidden: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert gpu(driver(tmp_path, "NVIDIA H200")) == ""


@pytest.mark.usefixtures("no_torch")
@pytest.mark.parametrize(("script", "name"), [("echo 'NVIDIA L4'", "NVIDIA L4"), ("echo 'no driver'; exit 9", "")])
def test_nvidia_smi_is_asked_where_the_driver_shows_no_files(
    script: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "nvidia-smi"
    command.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu(tmp_path / "gpus") == name


@pytest.mark.parametrize(("available", "name"), [(True, "NVIDIA T400"), (False, "")])
def test_torch_is_believed_once_it_is_imported(
    available: bool, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = SimpleNamespace(is_available=lambda: available, get_device_name=lambda: "NVIDIA T400")
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert gpu(driver(tmp_path, "NVIDIA H200")) == name


def test_threads_are_those_a_worker_computes_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # of this process, not of its workers
    assert environment(worker_threads(2))["threads_per_worker"] == 1
    assert environment(worker_threads(1))["threads_per_worker"] == cores()


def test_the_code_of_this_library_has_a_digest_of_every_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.cache_clear()
    package = tmp_path / "paretune"
    (package / "executors").mkdir(parents=True)
    (package / "deep.py").write_text("x = 1")
    monkeypatch.setattr("paretune.executors.environment.__file__", str(package / "executors" / "environment.py"))
    before = environment(1)["code"]
    environment.cache_clear()
    assert environment(1)["code"] == before
    (package / "deep.py").write_text("x = 2")
    environment.cache_clear()
    assert environment(1)["code"] != before
    environment.cache_clear()
