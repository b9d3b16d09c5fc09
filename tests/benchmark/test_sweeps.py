"""Whole sweeps of fake stages: what is tried, chosen, kept and done again."""

from __future__ import annotations

import dataclasses
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import builders
from paretune.benchmark.plan import plan
from paretune.benchmark.progress import Display, Progress
from paretune.benchmark.runner import run
from paretune.benchmark.summary import plan_text
from paretune.core.errors import BudgetError, RecordError
from paretune.records.files import read_json, read_signed, write_signed
from paretune.records.reading import read_study
from study_process import command, updates

Make = Callable[..., dict[str, Any]]
SWEEP = {"reward": [0.2, 0.9, 0.4], "instances": 2}


def scored(folder: Path) -> dict[str, int]:
    """When each finished cell of the sweep was written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("tuning/*/DONE.json")}


@pytest.mark.usefixtures("worker_processes")
def test_a_sweep_chooses_settings_and_the_study_is_run_with_them(study: Make, tmp_path: Path) -> None:
    folder, trace = tmp_path / "out", tmp_path / "trace.txt"
    made = study({"trace": str(trace)}, tune={**SWEEP, "per_preference": [False, True]})
    result = run(made, folder, progress=False)
    assert result.complete
    (record,) = result.records.tuning
    assert (record.task, record.method, record.measure) == ("fake", "fake", "utility")
    assert [point.text for point in record.points] == [  # the setting named last changes first
        f"reward={reward}, per_preference={each}" for reward in (0.2, 0.9, 0.4) for each in (False, True)
    ]
    assert [round(point.score or 0, 6) for point in record.points] == [0.2, 0.2, 0.9, 0.9, 0.4, 0.4]
    assert record.points[3].per_seed == {10_000: pytest.approx(0.9), 10_001: pytest.approx(0.9)}
    assert record.chosen == 2  # the first of two that are alike
    # 2 instances x 3 rewards x (2 experts of 32, or 3 of 16)
    assert record.completions == 2 * 3 * (2 * 32 + 3 * 16)
    assert record.seconds > 0
    assert read_json(folder / "study.lock.json")["tuning"][0]["points"][3]["per_seed"].keys() == {"10000", "10001"}
    assert read_json(folder / "study.lock.json")["resolved"]["tune"] == {
        **SWEEP, "per_preference": [False, True], "completions": 64, "preferences": {"grid": 2},
    }  # fmt: skip
    for cell in result.records.cells:
        assert cell.seed < 10_000
        assert [record.rewards.max() for record in cell.evaluations] == [0.9] * 4
        assert sum(stage.counts["completions"] for stage in cell.stages) == 64  # nobody is charged for tuning
    planned = plan(made, folder)
    assert {cell.entry.settings["reward"] for cell in planned.cells} == {0.9}
    assert planned.count("finished") == 2

    before, kept = updates(trace), scored(folder)
    assert run(made, folder, progress=False).complete
    assert (updates(trace), scored(folder)) == (before, kept)


def test_the_plan_counts_the_sweep_and_says_what_comes_after_it(study: Make, tmp_path: Path) -> None:
    two = {"fake": {"method": "fake_study:Fake"}, "twin": {"method": "fake_study:Fake"}}
    made = study(methods=two, tune={**SWEEP, "instances": 3, "completions": 32, "preferences": {"grid": 4}})
    planned = plan(made, tmp_path / "out")
    assert planned.sweep is not None
    # 3 rewards x 3 instances, stages of the two methods shared; 9 x 2 cells x 5 preferences x 2 development prompts
    assert (len(planned.sweep.cells), planned.sweep.completions_to_train) == (18, 3 * 3 * 32)
    assert planned.sweep.completions_to_evaluate == 18 * 5 * 2
    assert [(cell.state, cell.reason) for cell in planned.cells] == [("new", "after tuning")] * 4
    assert planned.completions_charged == 4 * 64  # the sweep is charged to nobody
    alone = plan(study(methods=two), tmp_path / "out").minutes
    assert planned.minutes == pytest.approx([sum(each) for each in zip(planned.sweep.minutes, alone, strict=True)])
    assert (
        "tuning:   3 choices of settings x 3 instances x 2 methods, 18 of 18 trials left, 468 completions to make, "
        "charged to nobody\n"
    ) in plan_text(planned)
    assert json.loads(json.dumps(planned.plain()))["tuning"]["completions_to_train"] == 288
    run(made, tmp_path / "out", progress=False)
    after = plan(made, tmp_path / "out")
    assert "0 of 18 trials left, 0 completions to make" in plan_text(after)
    assert "chosen:   reward=0.9 (twin on fake)" in plan_text(after)
    assert after.plain()["tuning"]["chosen"] == [  # type: ignore[index]
        {"task": "fake", "method": method, "settings": {"reward": 0.9}} for method in two
    ]


def test_settings_that_do_not_fit_the_budget_are_refused_before_anything_is_written(
    study: Make, tmp_path: Path
) -> None:
    with pytest.raises(BudgetError, match=r"methods.fake with 16 completions: budget must give every expert one group"):
        run(study(tune={"per_preference": [False, True], "completions": 16}), tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_what_plans_and_runs_a_study_with_a_sweep_imports_no_torch(study: Make) -> None:
    code = (
        "import sys; from paretune.benchmark import plan, runner, summary; from paretune.training import train; "
        f"summary.plan_text(plan.plan({study(tune=SWEEP)!r})); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_ceiling_is_not_tuned(study: Make, tmp_path: Path) -> None:
    methods = {"fake": {"method": "fake_study:Fake"}, "most": {"method": "fake_study:Ceiling", "reward": 0.8}}
    planned = plan(study(methods=methods, seeds=1, tune=SWEEP), tmp_path / "out")  # it may even fix what is tuned
    assert planned.sweep is not None
    assert {cell.entry.label for cell in planned.sweep.cells} == {"fake"}
    assert {cell.entry.label: cell.reason for cell in planned.cells} == {"fake": "after tuning", "most": ""}
    assert "charged to nobody; not tuned, as a ceiling: most\n" in plan_text(planned)


def test_a_setting_that_a_method_lacks_is_left_out_of_its_grid_and_the_plan_says_so(
    study: Make, tmp_path: Path
) -> None:
    methods = {"fake": {"method": "fake_study:Fake"}, "split": {"method": "fake_study:Splitting"}}
    tune = {"reward": [0.2, 0.9], "completions_each": [16, 32, 64], "instances": 1}
    made = study(methods=methods, seeds=1, tune=tune)
    planned = plan(made, tmp_path / "out")
    assert planned.sweep is not None
    tried = [(cell.entry.label, cell.entry.settings["reward"]) for cell in planned.sweep.cells]
    assert tried == [
        *(("fake", reward) for reward in (0.2, 0.9)),
        *(("split", r) for r in (0.2, 0.9) for _ in range(3)),
    ]
    said = plan_text(planned)
    assert "tuning:   2 (fake) or 6 (split) choices of settings x 1 instance x 2 methods, 8 of 8 trials left" in said
    assert "left out: completions_each, which fake cannot set\n" in said
    result = run(made, tmp_path / "out", progress=False)
    assert result.complete
    chosen = {each.method: each.points[each.chosen or 0].settings for each in result.records.tuning}
    assert chosen == {"fake": {"reward": 0.9}, "split": {"reward": 0.9, "completions_each": 16}}
    assert [len(each.points) for each in result.records.tuning] == [2, 6]
    builders.assert_same(read_study(tmp_path / "out").tuning, result.records.tuning)


def test_a_method_without_any_setting_of_the_sweep_is_run_as_it_is(study: Make, tmp_path: Path) -> None:
    methods = {"fake": {"method": "fake_study:Fake"}, "split": {"method": "fake_study:Splitting"}}
    planned = plan(study(methods=methods, seeds=1, tune={"completions_each": [16, 32]}), tmp_path / "out")
    assert planned.sweep is not None
    assert {cell.entry.label for cell in planned.sweep.cells} == {"split"}
    assert {cell.entry.label: cell.reason for cell in planned.cells} == {"fake": "", "split": "after tuning"}


def test_a_grown_sweep_runs_what_is_missing_and_another_choice_other_cells(study: Make, tmp_path: Path) -> None:
    folder, trace = tmp_path / "out", tmp_path / "trace.txt"
    settings = {"trace": str(trace)}
    run(study(settings, workers=1, tune={"reward": [0.2, 0.4], "instances": 1}), folder, progress=False)
    kept, before = scored(folder), updates(trace)

    more = study(settings, workers=1, tune={"reward": [0.2, 0.4], "instances": 2})
    planned = plan(more, folder)
    assert planned.sweep is not None
    assert (planned.sweep.count("finished"), planned.sweep.count("new")) == (2, 2)
    assert {cell.reason for cell in planned.cells} == {"after tuning"}
    assert run(more, folder, progress=False).complete
    assert scored(folder).items() >= kept.items()
    assert updates(trace) == before + 2 * 4  # two new cells of four updates each, and the same choice as before
    kept, before = scored(folder), updates(trace)

    wider = study(settings, workers=1, tune={"reward": [0.2, 0.4, 0.9], "instances": 2})
    result = run(wider, folder, progress=False)
    assert result.complete
    assert scored(folder).items() >= kept.items()
    assert updates(trace) == before + 4 + 4  # the new value on two instances, two cells with what is chosen now
    assert {evaluation.rewards.max() for cell in result.records.cells for evaluation in cell.evaluations} == {0.9}


def test_a_damaged_section_of_the_lock_is_written_again_from_the_cells_of_the_sweep(
    study: Make, tmp_path: Path
) -> None:
    folder, trace = tmp_path / "out", tmp_path / "trace.txt"
    made = study({"trace": str(trace)}, tune=SWEEP)
    run(made, folder, progress=False)
    lock, before = read_signed(folder / "study.lock.json"), updates(trace)
    for damage in ([{"task": "fake"}], "nonsense", None):
        write_signed(folder / "study.lock.json", {**lock, "tuning": damage})
        with pytest.raises(RecordError, match=r"study.lock.json must have all its fields.*Run the same command again"):
            read_study(folder)
        assert run(made, folder, progress=False).complete
        assert read_json(folder / "study.lock.json")["tuning"] == lock["tuning"]
    assert updates(trace) == before


@pytest.mark.slow
def test_a_damaged_score_is_made_again(study: Make, tmp_path: Path) -> None:
    folder, trace = tmp_path / "out", tmp_path / "trace.txt"
    made = study({"trace": str(trace)}, tune=SWEEP)
    run(made, folder, progress=False)
    before = updates(trace)
    victim = next(folder.glob("tuning/*/score.json"))
    content = victim.read_text()
    victim.write_text(content.replace('"utilities"', '"utility"'))
    assert plan(made, folder).cells[0].reason == "after tuning"
    assert run(made, folder, progress=False).complete
    assert victim.read_text() == content
    assert updates(trace) == before  # its stages were still there


@pytest.mark.slow
def test_stages_of_a_finished_sweep_may_go(study: Make, tmp_path: Path) -> None:
    folder, trace = tmp_path / "out", tmp_path / "trace.txt"
    made = study({"trace": str(trace)}, tune=SWEEP)
    run(made, folder, progress=False)
    before = updates(trace)
    for path in folder.glob("stages/*/stage.json"):
        if read_json(path)["seed"] >= 10_000:
            for file in path.parent.glob("DONE.json"):
                file.unlink()
    planned = plan(made, folder)
    assert planned.sweep is not None
    assert (planned.sweep.count("finished"), planned.sweep.completions_to_train) == (6, 0)
    assert run(made, folder, progress=False).complete
    assert updates(trace) == before


def test_a_cell_of_the_sweep_that_fails_fails_the_cells_that_wait_for_it_until_it_is_repaired(
    study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    made = study(tune=SWEEP)
    monkeypatch.setenv("FAKE_EVALUATION", "fails")
    result = run(made, folder, progress=False)
    assert [cell.reason for cell in result.failed] == ["method_error"] * 2
    assert "tuning, fake-fake-64-s10000-" in result.failed[0].message
    assert "score: ValueError: bad evaluation" in result.failed[0].message
    assert result.records.tuning == ()
    assert not [path for path in folder.glob("stages/*/stage.json") if read_json(path)["seed"] < 10_000]  # none trained
    monkeypatch.delenv("FAKE_EVALUATION")
    repaired = run(made, folder, progress=False)
    assert repaired.complete
    assert not list(folder.glob("tuning/*/FAILED.json"))
    assert {evaluation.rewards.max() for cell in repaired.records.cells for evaluation in cell.evaluations} == {0.9}


def test_settings_that_diverge_have_no_score_and_are_neither_chosen_nor_tried_again(
    study: Make, tmp_path: Path
) -> None:
    folder, trace = tmp_path / "out", tmp_path / "trace.txt"
    made = study({"trace": str(trace), "reward": 0.7}, tune={"trouble": ["nan", ""], "instances": 2})
    result = run(made, folder, progress=False)
    assert result.complete
    (record,) = result.records.tuning
    assert record.chosen == 1
    bad, good = record.points
    assert (bad.score, bad.per_seed[10_000], good.reason) == (None, None, "")
    assert bad.per_seed[10_001] == pytest.approx(0.7)
    assert bad.reason.startswith(
        "seed 10000: training did not stay finite: expert (objective_weights=[1.0, 0.0]): loss"
    )
    before = updates(trace)
    assert run(made, folder, progress=False).complete
    assert updates(trace) == before


def test_where_no_settings_have_a_score_nothing_is_run_with_defaults(study: Make, tmp_path: Path) -> None:
    result = run(study(tune={"trouble": ["nan"], "instances": 1}), tmp_path / "out", progress=False)
    assert [cell.reason for cell in result.failed] == ["not_finite"] * 2
    assert "no settings of the sweep have a score" in result.failed[0].message
    (record,) = result.records.tuning
    assert record.chosen is None
    assert "chosen:   nothing could be scored (fake on fake)" in plan_text(
        plan(study(tune={"trouble": ["nan"], "instances": 1}), tmp_path / "out")
    )


def kill_after(made: dict[str, Any], folder: Path, ready: Callable[[], bool], seconds: float = 0.0) -> None:
    process = subprocess.Popen(command(made, folder), stderr=subprocess.DEVNULL)
    while not ready() and process.poll() is None:
        time.sleep(0.02)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()


def without_times(folder: Path) -> list[dict[str, Any]]:
    return [{**each, "seconds": None} for each in read_json(folder / "study.lock.json")["tuning"]]


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_ends_as_an_uninterrupted_one(study: Make, tmp_path: Path) -> None:
    folder, whole, trace = tmp_path / "killed", tmp_path / "whole", tmp_path / "trace.txt"
    made = study({"updates_seconds": 0.1, "trace": str(trace)}, seeds=1, tune={"reward": [0.2, 0.9], "instances": 2})
    moments = random.Random(5)
    for kill in range(3):
        done = len(scored(folder))

        def further(done: int = done) -> bool:
            return len(scored(folder)) > done

        kill_after(made, folder, further if kill % 2 else lambda: bool(updates(trace)), moments.uniform(0, 0.3))
        assert len(scored(folder)) == 4 or not list(
            folder.glob("runs/*")
        )  # no reported cell before the sweep has ended
    kept = scored(folder)
    assert kept
    assert run(made, folder, progress=False).complete
    assert scored(folder).items() >= kept.items()
    run(made, whole, progress=False)
    assert without_times(folder) == without_times(whole)
    assert {path.name for path in folder.glob("runs/*")} == {path.name for path in whole.glob("runs/*")}


@pytest.mark.slow
def test_a_population_of_the_study_under_way_outlives_a_sweep_that_grows(study: Make, tmp_path: Path) -> None:
    folder, trace = tmp_path / "out", tmp_path / "trace.txt"
    settings = {"updates_seconds": 0.05, "trace": str(trace)}
    tune = {"reward": [0.9], "instances": 1, "completions": 64}
    made = study(settings, seeds=1, budget={"completions": 320}, workers=1, tune=tune)
    kill_after(made, folder, lambda: updates(trace) > 4 + 6)  # 4 updates of the sweep, 20 of the study's cell
    done = updates(trace)
    assert done < 4 + 20
    grown = {**made, "tune": {**tune, "reward": [0.9, 0.1]}}
    assert run(grown, folder, progress=False).complete
    assert updates(trace) - done <= 4 + (24 - done) + 1  # the new settings, the rest, and what the kill cost


@pytest.mark.slow
def test_a_sweep_is_shown_under_a_name_of_its_own(study: Make, tmp_path: Path) -> None:
    class Watch(Display):
        shown: list[Progress] = []  # noqa: RUF012  # one watch only

        def show(self, progress: Progress) -> None:
            self.shown.append(progress)

    run(study(tune=SWEEP), tmp_path / "out", progress=(watch := Watch()))
    lines = [each.line() for each in watch.shown]
    assert lines[0].startswith("tuning cells 0/6 done")
    assert lines[-1].startswith("cells 2/2 done")
    last = [each for each in watch.shown if each.noun == "tuning cells"][-1]
    assert last.completions + last.not_needed == last.total_completions == 6 * 64 + 6 * 3 * 2


@pytest.mark.slow
def test_a_part_tunes_its_own_tasks_only(study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fake_study

    monkeypatch.setattr(fake_study, "other", lambda: dataclasses.replace(fake_study.task("other"), source="o"), False)
    made = study(tasks=["fake_study:task", "fake_study:other"], tune=SWEEP, parts={"one": {"tasks": ["fake"]}}, seeds=1)
    planned = plan(made, tmp_path / "out", part="one")
    assert planned.sweep is not None
    assert {cell.task.name for cell in planned.sweep.cells} == {"fake"}
    assert [task.name for task in planned.tasks] == ["fake"]
    assert plan_text(planned).count("input: ") == 1
    result = run(made, tmp_path / "out", progress=False, part="one")
    assert result.complete
    assert [record.task for record in result.records.tuning] == ["fake"]
    assert {cell.task: cell.state for cell in result.records.cells} == {"fake": "done", "other": "pending"}
