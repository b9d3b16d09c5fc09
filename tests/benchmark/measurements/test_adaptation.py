"""What is adapted for how much, on the micro-task whose values are enumerated by the task's own completions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import table_jobs
from paretune.benchmark.measurements import adaptation
from paretune.benchmark.measuring import measure
from paretune.benchmark.plan import plan
from paretune.benchmark.runner import StudyResult
from paretune.core.errors import ConfigError, StopRequested
from paretune.executors.jobs import Link, quiet_link
from paretune.metrics import measure_all

Make = Callable[..., dict[str, Any]]


def curves(asked: StudyResult, method: str) -> dict[int, Mapping[str, Any]]:
    cell = next(each for each in asked.records.cells if each.method == method)
    (found,) = cell.measured["adaptation"]["preferences"]
    return {int(point["asked"]): point for point in found["curve"]}


def test_a_curve_has_a_point_at_each_length_and_costs_its_longest(asked: StudyResult) -> None:
    curve = curves(asked, "rewarded_soups")
    assert [point["completions"] for point in curve.values()] == [0, 64, 256]
    cell = next(each for each in asked.records.cells if each.method == "rewarded_soups")
    assert cell.measured["adaptation"]["cost"]["completions"] == 256  # shorter ones are made on the way
    assert curve[256]["J"] != curve[0]["J"]


def test_the_start_is_what_answers_the_preference(asked: StudyResult) -> None:
    for method in ("linear", "rewarded_soups", "mod"):
        cell = next(each for each in asked.records.cells if each.method == method)
        start = curves(asked, method)[0]
        (info,) = asked.records.tasks.values()
        record = cell.evaluation(info.preferences[info.unseen][0])
        assert record is not None
        assert start["utility"] == pytest.approx(record.utility(record.preference))
        assert start["kl"] == pytest.approx(record.kl)
        assert start["J"] == pytest.approx(start["utility"] - info.beta * record.kl)


def test_training_from_scratch_is_the_row_of_the_base_model_and_goes_on_to_the_budget(asked: StudyResult) -> None:
    curve = curves(asked, "base")
    assert sorted(curve) == [0, 64, 256, 512]  # beyond the lengths of all others, to the study's budget
    assert curve[0]["kl"] == pytest.approx(0, abs=1e-5)  # fp32, summed along two ways
    assert curve[512]["J"] > curve[0]["J"] + 0.01


def test_what_mixes_log_probabilities_keeps_its_start_and_the_reason(asked: StudyResult) -> None:
    assert sorted(curves(asked, "mod")) == [0]
    rows = {row.label: row.value for row in measure_all(asked.records, ["adaptability"]) if row.method == "mod"}
    assert rows["J after 0 completions"].value is not None
    assert "a policy to adapt must be the base model and one sum" in rows["J after 64 completions"].reason


def test_preferences_that_are_adapted_to_side_by_side_have_the_curves_that_each_has_alone(
    asking: dict[str, Any], asked: StudyResult, in_one_process: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptation, "LENGTHS", (64,))
    folder = tmp_path / "out"
    shutil.copytree(asked.folder, folder)
    made = plan({**asking, "preferences": {"grid": 2, "unseen": 2}}, folder)
    payload = next(each for each in table_jobs.payloads(made, "adaptation") if "-rewarded_soups-" in str(each["table"]))

    def measured(*points: list[float]) -> list[Mapping[str, Any]]:
        measure({**payload, "depends_on": {**payload["depends_on"], "adapted to": points}}, quiet_link())
        found: list[Mapping[str, Any]] = json.loads((folder / str(payload["table"]) / "adaptation.json").read_text())[
            "preferences"
        ]
        return found

    points = payload["depends_on"]["adapted to"]
    both, alone = measured(*points), [measured(point)[0] for point in points]
    assert [each["preference"] for each in both] == points
    assert [[point["asked"] for point in each["curve"]] for each in both] == [[0, 64], [0, 64]]
    for each, own in zip(both, alone, strict=True):
        for name in ("utility", "kl", "J"):  # fp32, in a batch of two policies
            expected = [point[name] for point in own["curve"]]
            assert [point[name] for point in each["curve"]] == pytest.approx(expected, abs=1e-5)
    assert abs(both[0]["curve"][1]["J"] - both[1]["curve"][1]["J"]) > 1e-3


def test_longer_budgets_are_trained_from_scratch_too(asking: dict[str, Any], tmp_path: Path) -> None:
    made = plan({**asking, "budget": {"completions": [128, 2048]}}, tmp_path)
    of_base = [
        each.table for each in made.tables if each.table.measurement == "adaptation" and "-base-" in each.table.folder
    ]
    (table,) = of_base
    assert table.depends_on["lengths"] == [64, 128, 256, 2048]
    assert table.completions == 2048 + 5 * 4  # five policies on four test prompts


def test_a_study_without_an_unseen_preference_is_refused(study: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"preferences.unseen must be at least 1 where adaptation is measured, got 0"):
        plan(study(measurements=["adaptation"], preferences={"grid": 2, "unseen": 0}), tmp_path / "out")


def test_a_kill_keeps_what_was_trained_and_the_next_run_ends_the_same(
    asking: dict[str, Any], asked: StudyResult, in_one_process: None, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(asked.folder, folder)
    made = plan(asking, folder)
    payload = next(each for each in table_jobs.payloads(made, "adaptation") if "-rewarded_soups-" in str(each["table"]))
    table = folder / str(payload["table"])
    before = json.loads((table / "adaptation.json").read_text())
    work, told = table.with_name(".adaptation.work"), list[str]()

    def sealed() -> dict[str, int]:
        return {path.parent.name: path.stat().st_mtime_ns for path in work.glob("stages/*/DONE.json")}

    def told_link(stopped: Callable[[], bool]) -> Link:
        return Link(lambda message: told.append(message["kind"]), stopped, 1)

    with pytest.raises(StopRequested):
        measure(payload, told_link(lambda: len(sealed()) == 2))  # the start, and 64 completions
    assert json.loads((table / "adaptation.json").read_text()) == before  # the table is as it was
    first, kept = sealed(), list[dict[str, int]]()
    assert len(first) == 2

    def look() -> bool:
        kept.append(sealed())
        return False

    measure(payload, told_link(look))
    assert kept
    assert all(first.items() <= each.items() for each in kept)  # none is trained again
    assert "sealed" not in told  # they are no stages of the study
    assert not work.exists()
    after = json.loads((table / "adaptation.json").read_text())
    assert [point["J"] for point in after["preferences"][0]["curve"]] == [
        point["J"] for point in before["preferences"][0]["curve"]
    ]
    assert after["cost"]["completions"] == 256
