"""Whole studies of fake stages, in real worker processes where these are the point."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paretune.benchmark.plan import plan
from paretune.benchmark.runner import StudyResult, run
from paretune.benchmark.summary import plan_text, summary
from paretune.core.errors import BudgetError, ParetuneError, StudyError
from paretune.records.merging import merged
from paretune.records.study import CellRecord
from paretune.training.checkpoints import remove_checkpoints
from study_process import command, updates
from watched import Watch, contents

Make = Callable[..., dict[str, Any]]
HERE = Path(__file__).parent


def hashes(folder: Path) -> dict[str, str]:
    """What was trained, by stage."""
    return {path.parent.parent.name: path.read_text() for path in folder.glob("stages/*/adapter/adapter.json")}


def recipe(name: str) -> Any:
    """A script of `recipes/`, imported."""
    spec = importlib.util.spec_from_file_location(name.removesuffix(".py"), HERE.parents[1] / "recipes" / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cells(result: StudyResult) -> dict[tuple[str, int], CellRecord]:
    return {(cell.method, cell.seed): cell for cell in result.records.cells}


@pytest.mark.usefixtures("worker_processes")
def test_a_study_runs_to_its_end_and_the_same_command_repeats_nothing(study: Make, tmp_path: Path) -> None:
    folder, trace = tmp_path / "out", tmp_path / "trace.txt"
    made = study({"trace": str(trace)})
    first = run(made, folder, progress=False)
    assert first.complete
    assert first.page.is_file()
    cell = cells(first)["fake", 0]
    assert [stage.counts["completions"] for stage in cell.stages] == [32, 32]
    assert [evaluation.answer for evaluation in cell.evaluations] == ["exact", "exact", "nearest", "nearest"]
    assert set(first.records.references) == {("fake", 0), ("fake", 1)}
    assert [timing.method for timing in first.records.timings] == ["fake"]
    assert not list((folder / "groups").glob("*"))
    kept = contents(folder, "stages", "runs", "references", "logs")
    before = trace.read_text()

    again = run(made, folder, progress=False)
    assert again.complete
    assert contents(folder, "stages", "runs", "references", "logs") == kept
    assert trace.read_text() == before
    assert plan(made, folder).count("finished") == 2


def test_progress_ends_at_all_that_was_to_do(study: Make, tmp_path: Path) -> None:
    watch = Watch()
    run(study({"per_preference": True}), tmp_path / "out", progress=watch)
    first, last = watch.shown[0], watch.shown[-1]
    # 2 seeds x 3 experts of 16 completions; 2 cells x 4 preferences x 3 prompts; 2 base models x 3 prompts
    assert (first.cells, first.done, first.running, first.total_completions) == (2, 0, 2, 2 * 3 * 16 + 24 + 6)
    assert (last.done, last.failed, last.completions) == (2, 0, last.total_completions)


def test_the_total_of_progress_stays_what_it_was_where_completions_are_not_needed(
    study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch()
    monkeypatch.setenv("FAKE_EVALUATION", "answers alike")
    run(study(), tmp_path / "out", progress=watch)
    last = watch.shown[-1]
    assert {each.total_completions for each in watch.shown} == {last.total_completions}
    assert last.not_needed == 2 * 3 * 3  # in 2 cells, 3 of 4 preferences share the answer of the first; 3 prompts
    assert last.completions + last.not_needed == last.total_completions


def test_what_is_added_is_all_that_is_done(study: Make, tmp_path: Path) -> None:
    folder, evaluations = tmp_path / "out", tmp_path / "evaluations.txt"
    run(study(seeds=1), folder, progress=False)
    kept = contents(folder, "stages", "runs", "references")
    evaluations.unlink()

    grown = run(study(seeds=2, preferences={"grid": 2, "unseen": 2}, budget={"completions": [64, 128]}), folder)
    assert grown.complete
    now = contents(folder, "stages", "runs", "references")
    stages = {
        name: content
        for name, content in kept.items()
        if name.startswith(("stages", "references")) and "/checkpoint/" not in name  # the longer run has its own
    }
    assert {name: now[name] for name in stages} == stages
    # one new unseen point for the old cell; 5 points for three new cells; the base of one new seed
    assert len(evaluations.read_text().splitlines()) == 1 + 3 * 5 + 1
    assert len(cells(grown)["fake", 0].evaluations) == 5


def test_a_longer_budget_goes_on_from_the_shorter_one(study: Make, tmp_path: Path) -> None:
    trace = tmp_path / "trace.txt"
    grown, whole = tmp_path / "grown", tmp_path / "whole"
    settings = {"trace": str(trace)}
    run(study(settings, seeds=1), grown, progress=False)
    trace.unlink()
    result = run(study(settings, seeds=1, budget={"completions": [64, 128]}), grown, progress=False)
    assert result.complete
    assert len(trace.read_text().splitlines()) == 8  # two experts, four groups of 8 from 32 to 64 each
    run(study(settings, seeds=1, budget={"completions": [64, 128]}), whole, progress=False)
    assert hashes(grown) == hashes(whole)
    counts = [stage.repeated["completions"] for cell in result.records.cells for stage in cell.stages]
    assert counts == [0, 0, 0, 0]


def checkpoints(folder: Path) -> list[int]:
    """Lengths whose checkpoints are kept."""
    return sorted(
        json.loads((path.parent / "stage.json").read_text())["completions"]
        for path in folder.glob("stages/*/checkpoint")
    )


def test_only_checkpoints_that_a_longer_run_may_start_from_are_kept(
    study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, trace = tmp_path / "out", tmp_path / "trace.txt"
    settings = {"trace": str(trace)}
    lengths = [64, 128, 192, 256]
    assert run(study(settings, seeds=1, budget={"completions": lengths}), folder, progress=False).complete
    assert checkpoints(folder) == [128, 128]  # two experts; each has half of the budget
    left_over = next(folder.glob("stages/*/checkpoint")).parent / ".checkpoint.gone"  # by a kill
    left_over.mkdir()
    trace.unlink()
    assert run(study(settings, seeds=1, budget={"completions": [*lengths, 320]}), folder, progress=False).complete
    assert len(trace.read_text().splitlines()) == 2 * 4  # two experts, from 128 to 160 by 8
    assert checkpoints(folder) == [160, 160]
    assert not left_over.exists()


def test_a_checkpoint_that_a_missing_stage_starts_from_is_kept(study: Make, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    made = study(seeds=1, budget={"completions": [64, 128, 192]})
    run(study(seeds=1, budget={"completions": [64]}), folder, progress=False)
    planned = plan(made, folder)
    run(made, folder, progress=False)
    (middle, *_) = (each for each in planned.stages if each.stage.completions == 64)
    short = next(each for each in planned.stages if each.stage.completions == 32)
    for each in (short, middle):
        (folder / "stages" / each.key / "checkpoint").mkdir(exist_ok=True)
    (folder / "stages" / middle.key / "DONE.json").unlink()  # damaged, and not repaired yet
    remove_checkpoints(folder, planned.stages)
    assert (folder / "stages" / short.key / "checkpoint").is_dir()


REASONS = {
    "killed": ("crash", "ended by SIGKILL"),
    "exit": ("crash", "ended with code 3"),
    "memory": ("out_of_memory", "no room"),
    "torch": ("out_of_memory", "can't allocate memory"),
    "nan": ("not_finite", "loss must be finite, got nan"),
    "disk": ("disk_full", "No space left"),
    "bug": ("method_error", "ZeroDivisionError: division by zero"),
}


@pytest.mark.parametrize("trouble", ["killed", "nan"])
def test_trouble_fails_its_cell_alone_and_the_next_call_tries_again(
    study: Make, tmp_path: Path, trouble: str, request: pytest.FixtureRequest
) -> None:
    if trouble == "killed":
        request.getfixturevalue("worker_processes")
    folder = tmp_path / "out"
    result = run(study({"trouble": trouble}), folder, progress=False)
    assert not result.complete
    bad, good = cells(result)["fake", 0], cells(result)["fake", 1]
    assert (bad.state, bad.reason) == ("failed", REASONS[trouble][0])
    assert REASONS[trouble][1] in bad.message
    assert "objective_weights=[1.0, 0.0]" in bad.message
    assert good.state == "done"
    assert len(hashes(folder)) == 3  # the others of its population were trained alone
    assert plan(study({"trouble": trouble}), folder).cells[0].reason.startswith(REASONS[trouble][0])
    kept = contents(folder, "stages")
    assert not run(study({"trouble": trouble}), folder, progress=False).complete
    assert contents(folder, "stages") == kept


def test_what_failed_is_told_once(study: Make, tmp_path: Path) -> None:
    watch = Watch()
    result = run(study({"trouble": "nan"}), tmp_path / "out", progress=watch)
    (bad,) = result.failed
    said = [line for line in watch.said if "failed" in line]
    assert said == [
        "a population of 2 failed (not_finite), trying each alone",
        f"{bad.cell} failed (not_finite): runs/{bad.cell}/FAILED.json says why",
    ]
    assert bad.message in (tmp_path / "out" / "runs" / bad.cell / "FAILED.json").read_text()
    assert summary(result).count("loss must be finite") == 1


def test_a_failed_evaluation_fails_its_cell_and_is_repaired_by_the_next_call(
    study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    monkeypatch.setenv("FAKE_EVALUATION", "fails")
    result = run(study(seeds=1), folder, progress=False)
    assert cells(result)["fake", 0].reason == "method_error"
    assert "bad evaluation" in cells(result)["fake", 0].message
    (problem,) = result.problems
    assert problem.startswith(
        "references/fake-0 could not be measured (method_error): ValueError: bad evaluation (fake_"
    )
    monkeypatch.delenv("FAKE_EVALUATION")
    assert run(study(seeds=1), folder, progress=False).complete
    assert not list(folder.glob("runs/*/FAILED.json"))


def test_a_damaged_stage_is_trained_again(study: Make, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    run(study(seeds=1), folder, progress=False)
    before = hashes(folder)
    victim = next(folder.glob("stages/*/adapter/adapter.json"))
    victim.write_text("damaged")
    assert plan(study(seeds=1), folder).cells[0].reason == "1 of its 2 stages are gone"
    assert run(study(seeds=1), folder, progress=False).complete
    assert hashes(folder) == before


@pytest.mark.slow  # recipes/trust/kills.py does more of it
def test_kills_at_random_moments_leave_the_result_of_an_uninterrupted_run(study: Make, tmp_path: Path) -> None:
    folder, whole, trace = tmp_path / "killed", tmp_path / "whole", tmp_path / "trace.txt"
    settings = {"updates_seconds": 0.06, "trace": str(trace)}
    made = study(settings, seeds=3, budget={"completions": [64, 128]})
    moments = random.Random(7)
    for kill in range(5):
        process = subprocess.Popen(command(made, folder), stderr=subprocess.DEVNULL)
        lines = updates(trace)
        while kill % 2 == 0 and updates(trace) == lines and process.poll() is None:
            time.sleep(0.02)  # until it trains; the other kills may come at any earlier moment
        time.sleep(moments.uniform(0.0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
        sealed = {name: kept for name, kept in contents(folder, "stages").items() if name.endswith("/DONE.json")}
    made_by_kills = updates(trace)
    finished = run(made, folder, progress=False)
    assert finished.complete
    now = contents(folder, "stages")
    assert {name: now[name] for name in sealed} == sealed
    trace.unlink()
    run(made, whole, progress=False)
    assert hashes(folder) == hashes(whole)
    assert made_by_kills > 0
    charged = {stage.key: stage.counts["completions"] for cell in finished.records.cells for stage in cell.stages}
    assert sorted(charged.values()) == [32] * 6 + [64] * 6


def test_ctrl_c_stops_workers_keeps_state_and_exits(study: Make, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    made = study({"updates_seconds": 0.3}, seeds=1)
    process = subprocess.Popen(command(made, folder), stderr=subprocess.PIPE, text=True)
    while not list(folder.glob("groups/*/checkpoint/state.json")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode != 0
    assert "stopping" in errors
    assert list(folder.glob("groups/*/checkpoint/state.json"))
    said = plan_text(plan(made, folder))
    assert re.search(r"to train \(\d+ of them begun: each goes on from its last checkpoint, with less to make\)", said)
    result = run(made, folder, progress=False)
    assert result.complete
    assert all(stage.counts["completions"] == 32 for stage in cells(result)["fake", 0].stages)


def test_a_folder_in_use_is_refused(study: Make, tmp_path: Path) -> None:
    import fcntl

    folder = tmp_path / "out"
    run(study(seeds=1), folder, progress=False)
    with (folder / ".lock").open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write(str(os.getpid()))
        held.flush()
        with pytest.raises(StudyError, match=f"one process at a time, got '{folder}', which process {os.getpid()}"):
            run(study(seeds=1), folder, progress=False)


def test_a_study_that_cannot_run_leaves_no_folder(study: Make, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="one group"):
        run(study(budget={"completions": 8}), tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "another name": ({}, {"name": "other"}, "the study 'fakes', not 'other'"),
    "fewer seeds": ({}, {"seeds": 1}, "results of seed 1, which the study no longer names"),
    "a method under another name": (
        {},
        {"methods": {"renamed": {"method": "fake_study:Fake"}}},
        "results of method 'fake', which the study no longer names",
    ),
    "another budget": ({}, {"budget": {"completions": 128}}, "results of budget 64, which the study no longer names"),
    "fewer preferences": (
        {},
        {"preferences": {"grid": 1, "unseen": 1}},
        "preferences.grid 2, more than the 1 of the study",
    ),
}


def test_a_folder_of_another_study_is_refused_and_nothing_in_it_changes(study: Make, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    run(study(), folder, progress=False)
    kept = contents(folder, ".")
    for settings, change, message in OTHERS.values():
        with pytest.raises(StudyError, match=f"with {message}. Choose another folder with -o"):
            run(study(settings, **change), folder, progress=False)
    assert contents(folder, ".") == kept


def test_a_method_that_only_failed_is_corrected_in_the_same_folder(study: Make, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert not run(study({"trouble": "nan"}, seeds=1), folder, progress=False).complete
    corrected = run(study(seeds=1), folder, progress=False)
    assert corrected.complete
    assert [cell.state for cell in corrected.records.cells] == ["done"]
    assert [path.name for path in (folder / "runs").iterdir()] == [corrected.records.cells[0].cell]


def test_a_run_killed_before_its_first_file_goes_on(study: Make, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    for name in (".lock", ".study.yaml.123-abcd.tmp", "study.yaml"):
        (folder / name).write_text("")
    assert plan(study(), folder).count("new") == 2


def test_a_folder_with_other_files_is_refused(study: Make, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(StudyError, match="must be empty or hold this study"):
        run(study(), tmp_path, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_parts_run_alone_in_their_own_folders_and_make_one_report(study: Make, tmp_path: Path) -> None:
    made = study(parts={"early": {"seeds": [0]}, "late": {"seeds": [1]}})
    early = run(made, tmp_path / "early", progress=False, part="early")
    assert early.complete
    assert {key: cell.state for key, cell in cells(early).items()} == {("fake", 0): "done", ("fake", 1): "pending"}
    assert set(early.records.references) == {("fake", 0)}
    late = run(made, tmp_path / "late", progress=False, part="late")
    whole = merged([early.records, late.records])
    assert [cell.state for cell in whole.cells] == ["done", "done"]
    kept = recipe("keep_part.py")
    kept.keep(tmp_path / "early", "early", tmp_path / "kept")
    assert "fake" in (tmp_path / "kept" / "tables.csv").read_text()
    digests = json.loads((tmp_path / "kept" / "digests.json").read_text())
    (cell,) = [cell for cell in early.records.cells if cell.state == "done"]
    assert digests[cell.cell]["stages"] == [stage.key for stage in cell.stages]
    with pytest.raises(ParetuneError, match="part 'late' must be finished, got 1 unfinished, the first cell fake-"):
        kept.keep(tmp_path / "early", "late", tmp_path / "kept")
    kept.keep(tmp_path / "early", "early", tmp_path / "kept", ["tables/costs.csv"])
    left = {path.relative_to(tmp_path / "kept").as_posix() for path in (tmp_path / "kept").rglob("*") if path.is_file()}
    assert left == {"tables/costs.csv", "digests.json"}  # and nothing of an earlier time
    reference = tmp_path / "early" / "references"
    moved = reference.rename(tmp_path / "moved")
    with pytest.raises(ParetuneError, match=r"got 1 unfinished, the first references/.* \(.+\). Run"):
        kept.keep(tmp_path / "early", "early", tmp_path / "kept")
    moved.rename(reference)
    together = run(made, tmp_path / "early", progress=False)  # the same folder, the rest of it
    assert together.complete
    assert hashes(tmp_path / "early") == hashes(tmp_path / "early") | hashes(tmp_path / "late")


@pytest.mark.parametrize(
    ("parts", "asked", "message"),
    [
        ({}, "early", "part must be left out: study has no parts, got 'early'"),
        ({"early": {"seeds": [0]}}, "erly", "part must be one of early, got 'erly'. Did you mean 'early'?"),
        ({"early": {"seeds": [7]}}, "early", "parts.early.seeds must be among the study's seeds, got 7"),
        ({"early": {"tasks": ["fakes"]}}, "early", "parts.early.tasks must be one of fake, got 'fakes'"),
        ({"early": {"task": ["fake"]}}, "early", "parts.early.task must be one of the keys seeds, tasks, got 'task'"),
    ],
)
def test_a_part_that_does_not_exist_is_refused_and_leaves_no_folder(
    study: Make, tmp_path: Path, parts: dict[str, Any], asked: str, message: str
) -> None:
    with pytest.raises(ParetuneError) as caught:
        run(study(parts=parts), tmp_path / "out", progress=False, part=asked)
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()
