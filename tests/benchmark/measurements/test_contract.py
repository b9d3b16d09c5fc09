"""What a user's measurement may ask for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paretune.benchmark.plan import plan
from paretune.core.errors import ConfigError

Make = Callable[..., dict[str, Any]]
MODULE = """
from paretune.core.protocols import Table


class Own:
    name, version, alone = "own", 1, False

    def jobs(self, study, cells):
        cell = cells[0]
        return {jobs}

    def run(self, job, link):
        pass
"""
GOOD = 'Table(f"runs/{cell.name}/own", cell.task.name, cell.seed, {}, (cell.name,))'


def planned(study: Make, folder: Path, jobs: str) -> list[str]:
    (folder / "own_measurement.py").write_text(MODULE.replace("{jobs}", jobs))
    sys.modules.pop("own_measurement", None)
    made = plan(study(measurements=["own_measurement:Own"]), folder / "out")
    return [each.table.folder for each in made.tables if each.table.measurement == "own_measurement:Own"]


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize("folder", ['f"runs/{cell.name}/own"', '"references/any/own"', '"truths/t/own"'])
def test_a_table_lies_in_a_folder_of_its_measurement(study: Make, tmp_path: Path, folder: str) -> None:
    (made,) = planned(study, tmp_path, f"[Table({folder}, cell.task.name, cell.seed, {{}}, (cell.name,))]")
    assert made.endswith("/own")


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        *(
            (f"[Table({folder}, cell.task.name, cell.seed, {{}}, (cell.name,))]", "folder of each table of .* its own")
            for folder in (
                '"../../escaped"', '"/tmp/x/own"', 'f"runs/{cell.name}/evaluations"', 'f"runs/{cell.name}"',
                '"runs/nobody/own"', 'f"stages/x/own"', '"references/../own"', 'f"runs/{cell.name}/x/own"', "3", '""',
            )
        ),
        (f"[{GOOD}, {GOOD}]", r"/own\' again"),
        ("[1]", r"must return a list of Table, got \[1\]"),
        ("5", "must return a list of Table, got 5"),
        ("1 / 0", r"must not raise, got ZeroDivisionError.*own_measurement.py, line 10\)"),
        (GOOD.replace("(cell.name,))", '("nope",))').join("[]"), "must name task, seed and cells of the study"),
        (GOOD.replace("cell.task.name", '"nope"').join("[]"), "must name task, seed and cells of the study"),
        (GOOD.replace("cell.seed", "99").join("[]"), "must name task, seed and cells of the study"),
        (GOOD.replace("(cell.name,))", "(cell.name,), cell.stages)").join("[]"), "and no stages"),
        (GOOD.replace("{}", '{"y": object()}').join("[]"), "depends_on of table 'runs/.*' of 'own_measurement:Own'"),
        (GOOD.replace("{}", '{"y": float("nan")}').join("[]"), "depends_on of table .*: a key must hold finite"),
    ],
)  # fmt: skip
def test_any_other_table_is_refused_in_a_plan(study: Make, tmp_path: Path, jobs: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        planned(study, tmp_path, jobs)
    assert not (tmp_path / "out").exists()
