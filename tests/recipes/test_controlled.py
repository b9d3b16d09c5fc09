from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("script", "found", "least"),
    [
        # of 9 intervals at .95, fewer than 6 hold the truth with a chance of 6e-4, as if they were independent
        ("controlled_coverage.py", r"1\.2 nats, base: 9 of 9 answered, the interval holds J\* in ([01]\.\d{3})", 6 / 9),
        ("controlled_learning_rate.py", r"0\.005: captured share (-?\d\.\d{3}) \(-?\d\.\d{3} by task\)", -math.inf),
    ],
)
def test_recipes_of_controlled_tasks_run(script: str, found: str, least: float, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, str(root / "recipes" / script), "--tiny"]
    command += ["--output", str(tmp_path / "out")] if "learning_rate" in script else []
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1"}
    made = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=120)
    number = re.search(found, made.stdout)
    assert number is not None
    assert float(number[1]) >= least - 5e-4  # printed with three digits
    assert "model shards" not in made.stderr  # no bars of files written in milliseconds
