"""Measurements that a study asks for: named in its file, sealed like every table, read back, missed where damaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paretune.benchmark.measurements import MEASUREMENTS, ON_REQUEST, load_measurement
from paretune.benchmark.plan import plan
from paretune.benchmark.runner import StudyResult
from paretune.benchmark.study import load_study
from paretune.core.errors import ConfigError, UnknownNameError
from paretune.metrics import measure_all
from paretune.records.layout import MEASURED
from paretune.records.reading import read_study
from paretune.records.tables import look

Make = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.usefixtures("in_one_process")  # what is planned again must be what was run


def test_each_is_loaded_by_its_name_and_read_back_under_it() -> None:
    assert set(ON_REQUEST) <= set(MEASURED)
    assert not set(ON_REQUEST) & set(MEASUREMENTS)
    assert [load_measurement(name).name for name in ON_REQUEST] == [*ON_REQUEST]


def test_a_study_measures_those_that_it_names_and_no_others(study: Make, tmp_path: Path) -> None:
    def names(**keys: Any) -> set[str]:
        return {each.table.measurement for each in plan(study(**keys), tmp_path / "out").tables}

    assert names(measurements=["adaptation"]) - names() == {"adaptation"}
    assert not names() & {*ON_REQUEST}


def test_an_unknown_name_is_refused_with_the_closest_one(study: Make) -> None:
    with pytest.raises(
        UnknownNameError, match=r"measurements.*must be one of .*'adaptatoin'. Did you mean 'adaptation'"
    ):
        load_study(study(measurements=["adaptatoin"]))
    with pytest.raises(ConfigError, match=r"measurements.*must be names of measurements, or of your own"):
        load_study(study(measurements=["Adaptation!"]))
    with pytest.raises(ConfigError, match=r"metrics.*must be names of your own"):
        load_study(study(metrics=["adaptability"]))


def test_its_table_is_sealed_and_read_into_the_cell(asked: StudyResult) -> None:
    assert not asked.problems
    for cell in asked.records.cells:
        for name in ("adaptation", "scaling") if cell.family != "reference" else ("adaptation",):
            assert look(asked.folder, f"runs/{cell.cell}/{name}").state == "finished"
            assert cell.measured[name]["cost"]["run_seconds"] > 0
        assert not list((asked.folder / "runs" / cell.cell).glob(".*"))  # what was trained on the way is gone


def test_its_completions_are_those_that_the_plan_counts_at_most(asking: dict[str, Any], asked: StudyResult) -> None:
    tables = {each.table.folder: each.table.completions for each in plan(asking, asked.folder.parent / "other").tables}
    for cell in asked.records.cells:
        made = cell.measured["adaptation"]["cost"]["completions"]
        scored = sum(len(each["curve"]) for each in cell.measured["adaptation"]["preferences"]) * 4  # test prompts
        assert made + scored <= tables[f"runs/{cell.cell}/adaptation"]
        if "scaling" in cell.measured:
            parts = [cell.measured["scaling"][name] for name in ("objective", "preference")]
            assert sum(part["completions"] for part in parts) <= tables[f"runs/{cell.cell}/scaling"]


def test_the_same_command_measures_nothing_again(asking: dict[str, Any], asked: StudyResult) -> None:
    assert all(each.finished for each in plan(asking, asked.folder).tables)


@pytest.mark.parametrize("name", ["adaptation", "scaling"])
def test_a_damaged_table_is_missing_and_is_asked_for_again(
    asking: dict[str, Any], asked: StudyResult, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(asked.folder, folder)
    cell = next(each for each in asked.records.cells if each.method == "rewarded_soups")
    file = folder / "runs" / cell.cell / name / f"{name}.json"
    file.write_bytes(file.read_bytes().replace(b"0.", b"1.", 1))
    records = read_study(folder)
    damaged = next(each for each in records.cells if each.cell == cell.cell)
    assert damaged.state == "done"
    assert name not in damaged.measured
    metric = {"adaptation": "adaptability", "scaling": "scalability"}[name]
    rows = [row for row in measure_all(records, [metric]) if row.method == "rewarded_soups" and row.value.value is None]
    assert rows
    assert all(f"{name} is missing (runs/{cell.cell}/{name}: {name}.json" in row.value.reason for row in rows)
    again = [each.table.folder for each in plan(asking, folder).tables if not each.finished]
    assert again == [f"runs/{cell.cell}/{name}"]


def test_a_study_that_does_not_name_it_says_so_in_the_reason(asked: StudyResult) -> None:
    from dataclasses import replace

    tables = tuple(each for each in asked.records.tables if each.measurement not in ON_REQUEST)
    cells = tuple(replace(each, measured={}) for each in asked.records.cells)
    for metric, name in (("adaptability", "adaptation"), ("scalability", "scaling")):
        for row in measure_all(replace(asked.records, tables=tables, cells=cells), [metric]):
            assert row.value.value is None
            if f"has no record of {name}" in row.value.reason:  # a regret is missing for want of an optimum first
                assert row.value.reason.endswith(
                    f"{name} is missing: name it under `measurements` in the study, and run it again"
                )
