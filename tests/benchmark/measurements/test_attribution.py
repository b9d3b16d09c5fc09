"""Attribution on a real study, run once: the micro-task, whose policies are sampled, and a controlled one, exact."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import micro_task
import real_studies
import table_jobs
from paretune.attribution.shapley import MOST_EXACT
from paretune.benchmark import runner
from paretune.benchmark.measurements import attribution
from paretune.benchmark.measurements.attribution import raised_weight
from paretune.benchmark.measurements.expert_names import expert_names
from paretune.benchmark.measurements.weights_in_force import weights_in_force
from paretune.benchmark.plan import plan
from paretune.core.answers import Combined, Nearest
from paretune.metrics.explainability import Explainability
from paretune.records.files import mark_done, write_json
from paretune.records.study import CellRecord

CLOSE = 1e-9  # sums of float64 in another order
SMALL = {
    "rank": 2, "group_size": 4, "completions_per_update": 16, "learning_rate": 3e-2, "epochs": 1, "average_decay": 0.0,
}  # fmt: skip
CONTROLLED = {"controlled": {"rho": -0.2, "heterogeneity": 0.5, "alphabet": 4, "length": 3}}
ADAPTERS = ("rewarded_soups", "mod", "mixture_of_experts")


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    task = micro_task.save_task(tmp_path_factory.mktemp("task"))
    return {
        "name": "explained",
        "tasks": [str(task), CONTROLLED],
        "methods": {
            "linear": SMALL, "mgda": SMALL, **dict.fromkeys(ADAPTERS, SMALL),
            "many": {"method": "mixture_of_experts", **SMALL, "size": 8},
        },
        "budget": {"completions": 192},
        "seeds": 1,
        "preferences": {"grid": 2, "unseen": 0},
        "measurements": ["attribution"],
        "workers": 1,
    }  # fmt: skip


@pytest.fixture(scope="module")
def explained(asking: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> runner.StudyResult:
    with real_studies.in_this_process():
        return runner.run(asking, tmp_path_factory.mktemp("explained") / "out", progress=False)


def cells(result: runner.StudyResult, *methods: str) -> list[CellRecord]:
    return [each for each in result.records.cells if each.method in methods or not methods]


def tables(result: runner.StudyResult, *methods: str) -> list[Mapping[str, Any]]:
    return [each.measured["attribution"] for each in cells(result, *methods) if each.family != "reference"]


def test_every_cell_with_experts_is_measured_and_the_base_model_is_not(explained: runner.StudyResult) -> None:
    assert not explained.problems
    for cell in cells(explained):
        assert ("attribution" in cell.measured) == (cell.family != "reference")
    assert {each["scores"] for each in tables(explained)} == {"exact", "estimated from 4 samples of each prompt"}


def test_shapley_values_add_up_to_the_gain_over_the_base_model(explained: runner.StudyResult) -> None:
    for table in tables(explained):
        assert table["points"][0]["at"] == "equal weights"
        for point in table["points"]:
            gain = np.subtract(point["policy"], point["base"])
            np.testing.assert_allclose(np.sum(point["shapley"], axis=0), gain, atol=CLOSE)
            assert abs(gain[2]) > 1e-3  # it has learned something


def test_the_expert_of_an_objective_adds_most_to_it(explained: runner.StudyResult) -> None:
    for table in tables(explained, "rewarded_soups"):
        if table["scores"] == "exact":
            even, raised, _ = table["points"]
            assert np.array(even["shapley"])[:, :2].argmax(axis=0).tolist() == [0, 1]
            assert np.array(even["removal"])[:, :2].argmax(axis=0).tolist() == [0, 1]
            assert raised["expert_weights"] == pytest.approx([0.7, 0.3])


def test_of_two_experts_values_differ_as_losses_do(explained: runner.StudyResult) -> None:
    """phi_0 - phi_1 = v(0) - v(1) = (v(01) - v(1)) - (v(01) - v(0))."""
    for table in tables(explained, *ADAPTERS):
        for point in table["points"]:
            assert (len(point["experts"]), point["coalitions"]) == (2, 4)
            shapley, removal = np.array(point["shapley"]), np.array(point["removal"])
            np.testing.assert_allclose(shapley[0] - shapley[1], removal[0] - removal[1], atol=CLOSE)


def test_exact_scores_are_those_of_the_cells_own_evaluation(explained: runner.StudyResult) -> None:
    for cell in cells(explained, "linear", *ADAPTERS):
        table = cell.measured["attribution"]
        if table["scores"] == "exact":
            record = cell.evaluation(np.array([0.5, 0.5]))
            assert record is not None
            own = [*record.scores, record.kl, record.utility(record.preference)]
            np.testing.assert_allclose(table["points"][0]["policy"], own, atol=1e-6)  # fp32 passes of other batches
            reference = explained.records.references[cell.task, 0].scores
            np.testing.assert_allclose(table["points"][0]["base"][:2], reference, atol=1e-6)
            assert abs(table["points"][0]["base"][2]) < 1e-6


def test_a_policy_of_one_expert_owes_it_all(explained: runner.StudyResult) -> None:
    for table in tables(explained, "linear", "mgda"):
        for point in table["points"]:
            assert point["coalitions"] == 2
            assert point["expert_weights"] == [1.0]
            np.testing.assert_allclose(point["shapley"], point["removal"], atol=CLOSE)


def test_changes_are_those_between_the_policies_that_answer(explained: runner.StudyResult) -> None:
    for table in tables(explained):
        changes, same = np.array(table["sensitivity"]["changes"]), np.array(table["sensitivity"]["same_policy"])
        assert (changes[same] == 0).all()
        if len(table["points"]) == 3:
            even, *raised = (np.array(point["policy"])[:3] for point in table["points"])
            np.testing.assert_allclose(changes[1], np.array(raised) - even, atol=CLOSE)
    assert np.array(tables(explained, "mgda")[0]["sensitivity"]["same_policy"]).all()  # trained at corners and between
    assert not np.array(tables(explained, "rewarded_soups")[0]["sensitivity"]["same_policy"]).any()


def test_a_gate_is_told_where_there_is_one(explained: runner.StudyResult) -> None:
    for table in tables(explained, "mixture_of_experts"):
        for point in table["gate"]["points"]:
            blocks, positions = np.array(point["by_block"]), np.array(point["by_position"])
            np.testing.assert_allclose(blocks.mean(axis=0), point["mean"], atol=CLOSE)
            assert positions.shape == (len(point["positions"]), 2)
            assert 0 < point["entropy"] <= 1
            assert np.ptp(blocks, axis=0).max() > 1e-4  # it has learned to tell blocks apart
        assert [point["at"] for point in table["gate"]["points"]] == [point["at"] for point in table["points"]]
    for table in tables(explained, "rewarded_soups", "mod", "linear"):
        assert table["gate"] == {"reason": "its experts are mixed by the preference alone"}


def test_of_more_than_six_experts_orders_are_drawn_at_equal_weights_alone(explained: runner.StudyResult) -> None:
    for table in tables(explained, "many"):
        (point,) = table["points"]
        assert len(point["experts"]) == 8 > MOST_EXACT
        assert 16 < point["coalitions"] <= attribution.MOST_POLICIES
        assert np.array(point["order_error"]).shape == (8, 4)
        assert np.array(point["order_error"]).max() > 0
        assert np.array(point["removal"]).shape == (8, 4)
        assert point["experts"][:2] == ["expert 1", "expert 2"]


def test_weights_in_force_are_those_that_were_given_or_that_a_weighting_chose(explained: runner.StudyResult) -> None:
    for table in tables(explained, "mgda"):
        assert sum(table["training"]["shares"]) == pytest.approx(1)
        assert abs(table["training"]["shares"][0] - 0.5) > 1e-3  # not what the preference says
        assert all(0 <= share <= 1 for share in table["training"]["conflicts"])
    for table in tables(explained, "linear", "rewarded_soups"):  # one policy for both alike, or one for each
        assert table["training"]["shares"] == pytest.approx([0.5, 0.5])
        assert table["training"]["conflicts"] is None


def test_measuring_again_finds_the_same_within_what_was_planned(
    asking: dict[str, Any], explained: runner.StudyResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan(asking, explained.folder)
    assert all(each.finished for each in made.tables if each.table.folder.endswith("/attribution"))
    planned = {each.table.folder: each.table.completions for each in made.tables}
    for cell in cells(explained):
        if "attribution" in cell.measured:
            assert cell.measured["attribution"]["cost"]["completions"] <= planned[f"runs/{cell.cell}/attribution"]
    monkeypatch.setattr("paretune.models.loading.default_device", lambda: "cpu")
    before = {each.cell: each.measured["attribution"] for each in cells(explained, "mixture_of_experts")}
    for cell, table in before.items():
        again = measured_again(asking, explained.folder, cell, tmp_path)
        assert {**again, "cost": None} == {**table, "cost": None}


def measured_again(asking: dict[str, Any], folder: Path, cell: str, target: Path) -> dict[str, Any]:
    """Measure one cell once more, into another folder."""
    from paretune.benchmark.measuring import TableJob
    from paretune.executors.jobs import quiet_link
    from paretune.training.stages import job_task

    payload = next(each for each in table_jobs.payloads(plan(asking, folder), "attribution") if cell in each["table"])
    link = quiet_link()
    attribution.Attribution().run(TableJob(payload, target, job_task(payload), link), link)
    found: dict[str, Any] = json.loads((target / "attribution.json").read_text())
    return found


def test_too_many_experts_have_no_values_and_a_reason(
    asking: dict[str, Any], explained: runner.StudyResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paretune.models.loading.default_device", lambda: "cpu")
    monkeypatch.setattr(attribution, "MOST_POLICIES", 30)  # two pairs of orders of eight take 38
    cell = cells(explained, "many")[0]
    again = measured_again(asking, explained.folder, cell.cell, tmp_path)
    assert again["points"][0]["reason"].startswith("8 experts are too many")
    records = replace(explained.records, cells=(replace(cell, measured={"attribution": again}),))
    rows = {row.label: row.value for row in Explainability().measure(records)}
    value = rows[f"shapley: {again['columns'][0]}, expert 1"]
    assert value.value is None
    assert "has no Shapley values (8 experts are too many" in value.reason


def test_metric_reads_what_was_measured(explained: runner.StudyResult) -> None:
    rows, error = Explainability().measure(explained.records), "faithfulness: shapley, relative error (lower is better)"
    for row in rows:
        assert row.value.value is not None or row.value.reason
        if row.label.startswith("faithfulness") and row.label != error and row.value.value is not None:
            assert -1 - CLOSE <= row.value.value <= 1 + CLOSE
    known = {(row.method, row.label) for row in rows if row.value.value is not None}
    assert {("rewarded_soups", error), ("many", "faithfulness: shapley"), ("many", "faithfulness: gate use")} <= known
    assert not known & {("linear", error), ("rewarded_soups", "faithfulness: shapley")}  # one expert, and two


def test_a_raised_weight_is_taken_from_the_others_in_proportion() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        preference = generator.dirichlet(np.ones(4))
        if preference[2] < 0.8:
            moved = raised_weight(preference, 2, 0.2)
            assert moved.sum() == pytest.approx(1)
            assert moved[2] == pytest.approx(preference[2] + 0.2)
            np.testing.assert_allclose(moved[0] / moved[1], preference[0] / preference[1])


def test_experts_are_named_by_what_they_are_for_and_each_differently() -> None:
    def of(answer: Any) -> list[str]:
        solutions: Any = SimpleNamespace(answer=answer)
        return expert_names(solutions, ["warm", "brief"])

    assert of(Combined(np.eye(2))) == ["warm", "brief"]
    assert of(Combined(np.array([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]]))) == ["expert 1", "warm", "expert 3"]
    assert of(Combined(np.array([[1.0, 0.0], [1.0, 0.0]]))) == ["expert 1", "expert 2"]  # one answers both corners
    assert of(Nearest(np.array([[1.0, 0.0], [0.5, 0.5]]))) == ["warm", "warm .50, brief .50"]
    assert of(Nearest(np.array([[1.0, 0.0], [0.5001, 0.4999], [0.5, 0.5]]))) == ["warm", "expert 2", "expert 3"]


def test_weights_are_read_of_all_updates_behind_a_stage(tmp_path: Path) -> None:
    def stage(
        name: str, rows: list[Any], conflicts: list[float | None] | None = None, run: str = "", length: int = 64
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        write_json(folder / "stage.json", {"trajectory": run or name, "completions": length})
        lines = [
            json.dumps(
                {"trajectory": own, "member": 0, "update": number, "reward_means": [0, 0], "mean_weights": weights}
            )
            for own, number, weights in rows
        ]
        (folder / "events.jsonl").write_text("\n".join([*lines, '{"torn": ', json.dumps({"trajectory": name})]) + "\n")
        mark_done(folder, {} if conflicts is None else {"conflicts": conflicts}, optional=("events.jsonl",))
        return folder

    one = stage("one", [("one", 1, [2, 2]), ("one", 2, [0, 3]), ("other", 1, [1, 0])], [0.2, None])  # .25 and .75
    two = stage("two", [("two", 1, [0.75, 0.25])], [0.4, None])
    silent = stage("silent", [])
    found = weights_in_force([one, two, one, silent])
    assert found["shares"] == pytest.approx([0.5, 0.5])
    assert found["conflicts"] == [pytest.approx(0.3), None]
    # it made the shorter run's second update anew, and one more: (1, 0), (.5, .5), (0, 1), and none of a longer one
    stage("shorter", [("run", 1, [1, 0]), ("run", 2, [1, 0])], run="run", length=64)
    longer = stage("longer", [("run", 2, [1, 1]), ("run", 3, [0, 2])], run="run", length=96)
    stage("longest", [("run", 4, [0, 1])], run="run", length=128)
    assert weights_in_force([longer])["shares"] == pytest.approx([0.5, 0.5])
    assert weights_in_force([silent])["shares_reason"] == (
        "the stages that its policy for equal weights is from left no log of their updates"
    )
    (silent / "events.jsonl").unlink()  # a stage is finished without it
    assert weights_in_force([silent])["shares"] is None
    assert (
        weights_in_force([silent])["conflicts_reason"] == "gradients of single objectives were not made in its training"
    )
