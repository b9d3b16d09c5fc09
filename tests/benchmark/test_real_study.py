"""The built-in methods on a tiny real model, killed and finished."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

STUDY = """
tasks: [task.yaml]
methods:
  linear: {completions_each: 256}
  weight_grid: {completions_each: 256, measured_each: 16}
  rewarded_soups: {}
budget: {completions: 1024}
seeds: 2
workers: 2
"""


def command(study: Path, output: Path) -> list[str]:
    return [sys.executable, "-m", "paretune.cli.main", "run", str(study), "-o", str(output)]


def trained(folder: Path) -> dict[str, dict[str, bytes]]:
    from safetensors.numpy import load_file  # the files' metadata have no fixed order

    paths = folder.glob("stages/*/adapter/adapter_model.safetensors")
    return {
        path.parent.parent.name: {name: tensor.tobytes() for name, tensor in load_file(path).items()} for path in paths
    }


def completions(folder: Path) -> dict[str, list[str]]:
    from paretune.records.reading import read_study

    return {
        f"{cell.cell} {index}": list(record.completions)
        for cell in read_study(folder).cells
        for index, record in enumerate(cell.evaluations)
    }


@pytest.mark.slow
def test_a_killed_study_ends_as_an_uninterrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import real_task

    real_task.write(tmp_path)
    study = tmp_path / "study.yaml"
    study.write_text(STUDY)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    started = time.monotonic()
    subprocess.run(command(study, whole), check=True, stderr=subprocess.DEVNULL)
    seconds = time.monotonic() - started
    moments = random.Random(3)
    sealed: dict[str, dict[str, bytes]] = {}
    for _ in range(5):
        process = subprocess.Popen(command(study, killed), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.3, 0.8) * seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = {path.parent.name for path in killed.glob("stages/*/DONE.json")}
        now = {name: content for name, content in trained(killed).items() if name in done}
        assert {name: now[name] for name in sealed} == sealed
        sealed = now
    finished = subprocess.run(command(study, killed), capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert trained(killed) == trained(whole)
    assert completions(killed) == completions(whole)
