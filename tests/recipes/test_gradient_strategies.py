from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest


@pytest.mark.usefixtures("in_one_process")
@pytest.mark.slow
def test_the_recipe_runs_and_says_how_often_steps_turned_against_an_objective(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = str(root / "recipes" / "gradient_strategies.py")
    monkeypatch.setattr(sys, "argv", [script, "--tiny", "--output", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(script, run_name="__main__")
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert re.findall(r"^(\w+): captured share -?\d\.\d{3}$", said, re.MULTILINE) == ["linear", "mgda"]
    assert "against an objective" in said
