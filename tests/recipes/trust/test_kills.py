"""The recipe that kills studies: what it takes for a difference, and that a killed study ends as an undisturbed one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Script = Callable[[str], ModuleType]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    cell = tmp_path / "runs" / "cell"
    cell.mkdir(parents=True)
    (cell / "solution.json").write_text("[1]")
    (cell / "DONE.json").write_text('{"files": {"solution.json": {}}}')
    return tmp_path


def test_a_sealed_file_that_changes_or_goes_was_written_again(script: Script, study: Path) -> None:
    kills, contents = script("kills"), script("contents")
    before = contents.sealed(study)
    assert set(before) == {"runs/cell/solution.json", "runs/cell/DONE.json"}
    (study / "runs" / "cell" / "new.json").write_text("[]")
    assert kills.rewritten(before, contents.sealed(study)) == []
    os.utime(study / "runs" / "cell" / "solution.json", ns=(1, 1))
    assert kills.rewritten(before, contents.sealed(study)) == ["runs/cell/solution.json"]
    (study / "runs" / "cell" / "DONE.json").unlink()
    assert len(kills.rewritten(before, contents.sealed(study))) == 2


def test_other_results_and_left_over_files_are_differences(script: Script, study: Path) -> None:
    kills, contents = script("kills"), script("contents")
    expected, files = contents.results(study), contents.names(study)
    assert kills.differences(study, expected, files) == []
    (study / "runs" / "cell" / ".solution.json.1.tmp").write_text("[")
    (study / "runs" / "cell" / "solution.json").write_text("[2]")
    assert kills.differences(study, expected, files) == [
        "runs/cell/solution.json differs",
        "runs/cell/.solution.json.1.tmp is left over",
    ]


@pytest.mark.slow
def test_a_study_killed_twice_ends_as_an_undisturbed_one(root: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(root / "recipes" / "trust" / "kills.py"), "--tiny"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ", 0 faults" in ran.stdout.splitlines()[-1]
