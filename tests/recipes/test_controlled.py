from __future__ import annotations

import csv
import math
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
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


def test_one_g_for_all_prompts_lacks_what_reading_them_is_worth(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(root / "recipes" / "meta_policy"))
    import context_range

    shape = context_range.TINY
    left, possible = context_range.measured(-0.8, 0.0, 0.0, 10000, shape)
    assert possible > 0
    assert left == pytest.approx(0, abs=1e-6 * possible)  # everybody wants w, and g = w is the best policy's
    left, possible = context_range.measured(-0.8, 0.0, 0.6, 10000, shape)
    assert 0.1 < left / possible < 1

    # each prompt has one completion for either objective, and its user wants the one that the other does not
    log_reference = np.log(np.full((2, 2), 0.5))
    rewards = np.stack([[[1.0, 0.0], [0.0, 1.0]]] * 2)  # [P, completions, K]
    base = np.full((2, 2), 0.5)
    found = context_range.fitted(log_reference, rewards, np.eye(2), base, 1.0)
    assert found == pytest.approx(0, abs=1e-6)  # what one g does for the first it undoes for the second


@pytest.mark.slow
def test_the_recipe_of_contexts_runs_and_more_context_leaves_more_to_find(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "found.csv"
    script = root / "recipes" / "meta_policy" / "context_range.py"
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(script), "--tiny", "-o", str(file)], env=environment, check=True, timeout=300)
    with file.open(newline="") as handle:
        lines = list(csv.DictReader(handle))
    assert len(lines) == 6 * 3
    for start in range(0, 18, 3):  # 0.2, 0.5 and 1
        left = [float(line["gain"]) for line in lines[start : start + 3]]
        assert 0 < left[0] < left[1] < left[2] < 1
