from __future__ import annotations

import math
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_recipe_of_coverage_runs(root: Path) -> None:
    command = [sys.executable, str(root / "recipes" / "controlled_coverage.py"), "--tiny"]
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1"}
    made = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=120)
    found = re.search(r"1\.2 nats, base: 9 of 9 answered, the interval holds J\* in ([01]\.\d{3})", made.stdout)
    assert found is not None
    # of 9 intervals at .95, fewer than 6 hold the truth with a chance of 6e-4, as if they were independent
    assert float(found[1]) >= 6 / 9 - 5e-4  # printed with three digits
    assert "model shards" not in made.stderr  # no bars of files written in milliseconds


@pytest.mark.usefixtures("in_one_process")
@pytest.mark.slow
def test_the_recipe_of_learning_rates_runs(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = str(root / "recipes" / "controlled_learning_rate.py")
    monkeypatch.setattr(sys, "argv", [script, "--tiny", "--output", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(script, run_name="__main__")
    assert ended.value.code == 0
    found = re.search(r"0\.005: captured share (-?\d\.\d{3}) \(-?\d\.\d{3} by task\)", capsys.readouterr().out)
    assert found is not None
    assert math.isfinite(float(found[1]))


@pytest.mark.slow
def test_the_recipe_of_contexts_runs_and_more_context_leaves_more_to_find(root: Path) -> None:
    command = [sys.executable, str(root / "recipes" / "meta_policy" / "context_range.py"), "--tiny"]
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1"}
    made = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=300)
    lines = made.stdout.splitlines()[2:]
    assert len(lines) == 6
    for line in lines:
        left = [float(value) for value in re.findall(r"(0\.\d{3}) \[", line)]
        assert len(left) == 3
        assert left == sorted(left)  # 0.2, 0.5 and 1
