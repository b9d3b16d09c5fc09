"""The rows that stand in every study, on the micro-task."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import micro_task
import real_studies
from paretune.benchmark.measurements import timing
from paretune.benchmark.plan import plan
from paretune.benchmark.planned import StudyResult
from paretune.benchmark.runner import run
from paretune.benchmark.study import load_study
from paretune.benchmark.summary import plan_text, summary
from paretune.core.errors import BudgetError, ConfigError
from paretune.metrics import measure_all
from paretune.report.comparison import comparisons
from paretune.report.findings import findings

SMALL = {"rank": 2, "group_size": 4, "completions_per_update": 16, "learning_rate": 3e-2, "epochs": 1}
BUDGET = 96


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task") / "micro"
    folder.mkdir()
    micro_task.load(folder)
    return folder / "task.yaml"


def study(task: Path, **changes: object) -> dict[str, Any]:
    return {
        "name": "rows", "tasks": [str(task)], "methods": {"linear": {**SMALL, "completions_each": 32}},
        "budget": {"completions": BUDGET}, "seeds": 2, "workers": 1, **changes,
    }  # fmt: skip


@pytest.fixture(scope="module")
def finished(task: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    with pytest.MonkeyPatch.context() as patch, real_studies.in_this_process(timed=True):
        patch.setattr(timing, "SECONDS", 0)  # no round beyond the least
        methods = {"linear": {**SMALL, "completions_each": 32}, "one_policy": SMALL}
        return run(study(task, methods=methods), tmp_path_factory.mktemp("out"), progress=False)


def test_they_stand_behind_what_is_named_and_count_as_they_are_named(task: Path) -> None:
    assert [entry.label for entry in load_study(study(task)).methods] == ["linear", "base", "one_policy"]
    named = load_study(
        study(task, methods={"one_policy": {"rank": 4}, "linear": {}, "other": {"method": "one_policy"}})
    )
    assert [entry.label for entry in named.methods] == ["one_policy", "linear", "other", "base"]
    assert named.methods[0].settings["rank"] == 4


@pytest.mark.parametrize("label", ["base", "one_policy"])
def test_their_labels_are_for_nothing_else(task: Path, label: str) -> None:
    with pytest.raises(ConfigError, match=rf"methods.{label} must be the row '{label}' that stands .* method 'linear'"):
        load_study(study(task, methods={"linear": {}, label: {"method": "linear"}}))
    with pytest.raises(ConfigError, match=r"methods must .*at least 1"):
        load_study(study(task, methods={}))


def test_a_plan_charges_the_base_model_nothing(task: Path, tmp_path: Path) -> None:
    planned = plan(study(task), tmp_path / "out")
    charged = {cell.entry.label: (cell.charged, cell.policies, len(cell.stages)) for cell in planned.cells}
    assert charged == {"linear": (96, 3, 3), "base": (0, 0, 0), "one_policy": (96, 1, 1)}
    assert f"policies: linear 3, one_policy 1 (trained for micro, {BUDGET} completions)" in plan_text(planned)
    assert "one policy only" not in plan_text(planned)  # that one policy answers everybody is what it is for
    with pytest.raises(BudgetError, match=r"methods.linear with 2 completions: budget must give each of 1 experts"):
        plan(study(task, budget={"completions": 2}), tmp_path / "out")


def test_the_base_models_row_is_the_reference(finished: StudyResult) -> None:
    assert finished.complete
    cells = {(cell.method, cell.seed): cell for cell in finished.records.cells}
    assert len(cells) == 6
    for seed in (0, 1):
        cell, reference = cells["base", seed], finished.records.references["micro", seed]
        assert (cell.family, cell.stages) == ("reference", ())
        for each in cell.evaluations:
            assert (each.completions, each.answer) == (reference.completions, "untrained")
            np.testing.assert_array_equal(each.rewards, reference.rewards)
            assert each.kl == pytest.approx(0, abs=1e-6)
        alike = cells["one_policy", seed].evaluations
        assert len({each.identity for each in alike}) == 1
        assert len({each.identity for each in cells["linear", seed].evaluations}) == 3


def test_the_base_model_is_shown_and_never_ranked(finished: StudyResult) -> None:
    rows = measure_all(finished.records)
    (part,) = comparisons(finished.records)
    assert [method.name for method in part.ranked] == ["linear", "one_policy"]
    assert [method.name for method in part.untrained] == ["base"]
    said = " ".join(f"{each.question} {each.answer}" for each in findings(part, rows))
    assert "base " not in said.replace("base model", "").replace("above base", "")
    lines = {line.split()[0]: line.split() for line in summary(finished).splitlines() if line.strip()}
    assert (lines["base"][1], lines["base"][-1]) == ("reference", "2/2")
    assert lines["one_policy"][1] in "12"
    page = finished.page.read_text(encoding="utf-8")
    assert '<span class="tag">base model</span>' in page
    assert "A single policy, trained for equal weights" in page
    lines = (finished.page.parent / "tables" / "seeds.csv").read_text().splitlines()
    assert {row["method"] for row in csv.DictReader(lines)} == {"linear", "one_policy", "base"}


def test_a_folder_from_before_grows_by_them(
    finished: StudyResult, task: Path, tmp_path: Path, in_one_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lean = study(task, seeds=1, methods={"linear": {**SMALL, "completions_each": 96}})
    with monkeypatch.context() as patch:
        patch.setattr("paretune.benchmark.study.with_standing_rows", lambda methods, place: dict(methods))
        run(lean, tmp_path / "out", progress=False)
    states = {cell.entry.label: cell.state for cell in plan(lean, tmp_path / "out").cells}
    assert states == {"linear": "finished", "base": "new", "one_policy": "new"}


TUNE = {"learning_rate": [0.01, 0.03], "completions_each": [32, 96], "instances": 1}


@pytest.mark.slow
def test_a_sweep_tries_them_with_the_settings_that_they_have(task: Path, tmp_path: Path, in_one_process: None) -> None:
    plain = {name: value for name, value in SMALL.items() if name != "learning_rate"}
    made = study(task, seeds=1, methods={"linear": plain, "one_policy": plain}, tune=TUNE)
    planned = plan(made, tmp_path / "out")
    assert planned.sweep is not None
    trials = [(cell.entry.label, cell.point, json.loads(cell.tried)) for cell in planned.sweep.cells]
    assert [(point, tried) for label, point, tried in trials if label == "one_policy"] == [
        (0, {"learning_rate": 0.01}), (1, {"learning_rate": 0.03}),
    ]  # fmt: skip
    assert [label for label, _, _ in trials] == ["linear"] * 4 + ["one_policy"] * 2
    assert len({cell.name for cell in planned.sweep.cells}) == 6
    result = run(made, tmp_path / "out", progress=False)
    assert result.complete
    chosen: Mapping[str, int] = {record.method: len(record.points) for record in result.records.tuning}
    assert chosen == {"linear": 4, "one_policy": 2}
    assert "one_policy, which lacks some of these settings, was tried with 2 choices." in result.page.read_text()


def test_a_sweep_of_what_they_lack_leaves_them_alone(task: Path, tmp_path: Path) -> None:
    planned = plan(study(task, methods={"linear": SMALL}, tune={"completions_each": [32, 96]}), tmp_path / "out")
    assert planned.sweep is not None
    assert {cell.entry.label for cell in planned.sweep.cells} == {"linear"}
    assert "left out: completions_each, which one_policy cannot set" in plan_text(
        planned
    )  # base has no settings at all
    assert {cell.entry.label for cell in planned.cells if cell.settled} == {"base", "one_policy"}
