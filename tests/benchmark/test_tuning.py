"""Choosing settings: scores on paper, then whole sweeps of fake stages in real worker processes."""

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

import numpy as np
import pytest

from paretune.benchmark import tuning
from paretune.benchmark.evaluating import assemble
from paretune.benchmark.groups import begin_group, populations
from paretune.benchmark.plan import Plan, PlannedCell, plan
from paretune.benchmark.progress import Progress, Silent
from paretune.benchmark.runner import planned_records, run
from paretune.benchmark.scheduling import Scheduler
from paretune.benchmark.stages import job_task, run_group
from paretune.benchmark.summary import plan_text
from paretune.benchmark.tuning import CellScore, best, measure_of, read_score, score, score_cell, write_score
from paretune.benchmark.worker import quiet_link
from paretune.core.errors import BudgetError, RecordError
from paretune.core.task import Task
from paretune.records.files import read_json, write_json
from paretune.records.reading import read_study
from paretune.records.writing import write_lock

Make = Callable[..., dict[str, Any]]
HERE = Path(__file__).parent
SWEEP = {"reward": [0.2, 0.9, 0.4], "instances": 2}


def exact(gained: list[float], possible: list[float], utilities: list[float] | None = None) -> CellScore:
    return CellScore(np.array(utilities or gained), np.array(gained), np.array(possible))


def test_the_first_of_equally_good_settings_is_chosen() -> None:
    assert best([0.1, 0.7, 0.7]) == 1
    assert best([0.7, 0.7 + 5e-7, 0.1]) == 0  # the last bits of single precision are no reason
    assert best([0.7, 0.7 + 5e-6, 0.1]) == 1
    assert best([None, -0.3, None]) == 1
    assert best([None, None]) is None
    assert best([]) is None


def test_no_other_settings_score_higher_and_no_earlier_ones_as_high() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        scores = [None if each < 0 else float(each) for each in generator.normal(0.5, 0.5, size=6).round(1)]
        chosen = best(scores)
        known = [each for each in scores if each is not None]
        assert (chosen is None) == (not known)
        if chosen is not None:
            assert scores[chosen] == max(known)
            assert scores[chosen] not in scores[:chosen]


def test_a_captured_share_is_a_ratio_of_sums_over_preferences_and_instances() -> None:
    cells = [exact([0.1, 0.2], [0.2, 0.4]), exact([0.3, 0.0], [0.6, 0.2])]
    assert score(cells, "captured_share") == pytest.approx(0.6 / 1.4)  # a mean of the instances' shares is 7/16
    assert score(cells[:1], "captured_share") == pytest.approx(0.3 / 0.6)


def test_a_utility_is_a_mean_over_preferences_and_instances_and_missing_where_one_is() -> None:
    cells = [CellScore(np.array([0.2, 0.4])), CellScore(np.array([0.6, 0.8]))]
    assert score(cells, "utility") == pytest.approx(0.5)
    assert score([cells[0], CellScore(np.array([0.6, np.nan]))], "utility") is None
    assert score([cells[0], CellScore(None, trouble="nan")], "utility") is None
    assert score([exact([1.0], [2.0]), CellScore(None, trouble="nan")], "captured_share") is None


def test_shares_are_compared_only_where_every_cell_with_a_score_knows_one() -> None:
    known, sampled = exact([0.1], [0.2]), CellScore(np.array([0.5]))
    diverged = CellScore(None, trouble="training did not stay finite")
    assert measure_of([known, known, diverged]) == "captured_share"
    assert measure_of([known, sampled]) == "utility"
    assert measure_of([known, exact([0.0], [0.0], [0.5])]) == "utility"  # nothing to gain: its share is not defined
    assert measure_of([diverged]) == "utility"


def test_scores_survive_their_file_missing_ones_too_and_a_damaged_file_is_refused(tmp_path: Path) -> None:
    for made in (
        CellScore(np.array([0.5, np.nan]), spent={"key": (64.0, 0.5)}),
        exact([0.1, -0.2], [0.3, 0.4]),
        CellScore(None, trouble="nan"),
    ):
        write_score(tmp_path, "cell", made, {"seed": 10_000})
        found = read_score(tmp_path, "cell")
        for name in ("utilities", "gained", "possible"):
            np.testing.assert_array_equal(getattr(found, name), getattr(made, name))
        assert (found.spent, found.trouble) == (made.spent, made.trouble)
    write_json(tmp_path / "tuning" / "cell" / "score.json", {"utilities": []})
    with pytest.raises(RecordError, match=r"score.json must have all its fields, got trouble with 'gained'"):
        read_score(tmp_path, "cell")


def scored(folder: Path) -> dict[str, int]:
    """When each finished cell of the sweep was written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("tuning/*/DONE.json")}


def made_completions(trace: Path) -> int:
    return len(trace.read_text().splitlines()) if trace.exists() else 0


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

    before, kept = made_completions(trace), scored(folder)
    assert run(made, folder, progress=False).complete
    assert (made_completions(trace), scored(folder)) == (before, kept)


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
    assert planned.minutes == pytest.approx(planned.sweep.minutes + plan(study(methods=two), tmp_path / "out").minutes)
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


def test_a_plan_with_a_sweep_imports_no_torch(study: Make) -> None:
    code = (
        "import sys; from paretune.benchmark import plan, summary; "
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


def test_a_grown_sweep_runs_what_is_missing_and_another_choice_other_cells(study: Make, tmp_path: Path) -> None:
    folder, trace = tmp_path / "out", tmp_path / "trace.txt"
    settings = {"trace": str(trace)}
    run(study(settings, workers=1, tune={"reward": [0.2, 0.4], "instances": 1}), folder, progress=False)
    kept, before = scored(folder), made_completions(trace)

    more = study(settings, workers=1, tune={"reward": [0.2, 0.4], "instances": 2})
    planned = plan(more, folder)
    assert planned.sweep is not None
    assert (planned.sweep.count("finished"), planned.sweep.count("new")) == (2, 2)
    assert {cell.reason for cell in planned.cells} == {"after tuning"}
    assert run(more, folder, progress=False).complete
    assert scored(folder).items() >= kept.items()
    assert (
        made_completions(trace) == before + 2 * 4
    )  # two new cells of four updates each, and the same choice as before
    kept, before = scored(folder), made_completions(trace)

    wider = study(settings, workers=1, tune={"reward": [0.2, 0.4, 0.9], "instances": 2})
    result = run(wider, folder, progress=False)
    assert result.complete
    assert scored(folder).items() >= kept.items()
    assert (
        made_completions(trace) == before + 4 + 4
    )  # the new value on two instances, two cells with what is chosen now
    assert {evaluation.rewards.max() for cell in result.records.cells for evaluation in cell.evaluations} == {0.9}


def test_a_damaged_section_of_the_lock_is_written_again_from_the_cells_of_the_sweep(
    study: Make, tmp_path: Path
) -> None:
    folder, trace = tmp_path / "out", tmp_path / "trace.txt"
    made = study({"trace": str(trace)}, tune=SWEEP)
    run(made, folder, progress=False)
    lock, before = read_json(folder / "study.lock.json"), made_completions(trace)
    for damage in ([{"task": "fake"}], "nonsense", None):
        write_json(folder / "study.lock.json", {**lock, "tuning": damage})
        with pytest.raises(RecordError, match=r"study.lock.json must have all its fields.*Run the same command again"):
            read_study(folder)
        assert run(made, folder, progress=False).complete
        assert read_json(folder / "study.lock.json")["tuning"] == lock["tuning"]
    assert made_completions(trace) == before


def test_a_damaged_score_is_made_again(study: Make, tmp_path: Path) -> None:
    folder, trace = tmp_path / "out", tmp_path / "trace.txt"
    made = study({"trace": str(trace)}, tune=SWEEP)
    run(made, folder, progress=False)
    before = made_completions(trace)
    victim = next(folder.glob("tuning/*/score.json"))
    content = victim.read_text()
    victim.write_text(content.replace('"utilities"', '"utility"'))
    assert plan(made, folder).cells[0].reason == "after tuning"
    assert run(made, folder, progress=False).complete
    assert victim.read_text() == content
    assert made_completions(trace) == before  # its stages were still there


def test_stages_of_a_finished_sweep_may_go(study: Make, tmp_path: Path) -> None:
    folder, trace = tmp_path / "out", tmp_path / "trace.txt"
    made = study({"trace": str(trace)}, tune=SWEEP)
    run(made, folder, progress=False)
    before = made_completions(trace)
    for path in folder.glob("stages/*/stage.json"):
        if read_json(path)["seed"] >= 10_000:
            for file in path.parent.glob("DONE.json"):
                file.unlink()
    planned = plan(made, folder)
    assert planned.sweep is not None
    assert (planned.sweep.count("finished"), planned.sweep.completions_to_train) == (6, 0)
    assert run(made, folder, progress=False).complete
    assert made_completions(trace) == before


def test_a_cell_of_the_sweep_that_fails_fails_the_cells_that_wait_for_it_until_it_is_repaired(
    study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    made = study(tune=SWEEP)
    monkeypatch.setenv("FAKE_EVALUATION", "fails")
    result = run(made, folder, progress=False)
    assert [cell.reason for cell in result.failed] == ["method_error"] * 2
    assert "tuning, fake-fake-64-s10000-" in result.failed[0].message
    assert "scoring: ValueError: bad evaluation" in result.failed[0].message
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
    before = made_completions(trace)
    assert run(made, folder, progress=False).complete
    assert made_completions(trace) == before


def test_where_no_settings_have_a_score_nothing_is_run_with_defaults(study: Make, tmp_path: Path) -> None:
    result = run(study(tune={"trouble": ["nan"], "instances": 1}), tmp_path / "out", progress=False)
    assert [cell.reason for cell in result.failed] == ["not_finite"] * 2
    assert "no settings of the sweep have a score" in result.failed[0].message
    (record,) = result.records.tuning
    assert record.chosen is None
    assert "chosen:   nothing could be scored (fake on fake)" in plan_text(
        plan(study(tune={"trouble": ["nan"], "instances": 1}), tmp_path / "out")
    )


def command(made: dict[str, Any], folder: Path) -> list[str]:
    code = (
        "import json, sys, fake_study; from paretune.benchmark import runner, scheduling; "
        "scheduling.JOBS['time'] = 'fake_study:time_methods'; runner.write_report = fake_study.write_report; "
        "result = runner.run(json.loads(sys.argv[1]), sys.argv[2]); sys.exit(not result.complete)"
    )
    return [sys.executable, "-c", code, json.dumps(made), str(folder)]


def kill_after(made: dict[str, Any], folder: Path, ready: Callable[[], bool], seconds: float = 0.0) -> None:
    process = subprocess.Popen(command(made, folder), stderr=subprocess.DEVNULL)
    while not ready() and process.poll() is None:
        time.sleep(0.02)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()


def without_times(folder: Path) -> list[dict[str, Any]]:
    return [{**each, "seconds": None} for each in read_json(folder / "study.lock.json")["tuning"]]


def test_a_killed_sweep_goes_on_and_ends_as_an_uninterrupted_one(study: Make, tmp_path: Path) -> None:
    folder, whole, trace = tmp_path / "killed", tmp_path / "whole", tmp_path / "trace.txt"
    made = study({"updates_seconds": 0.1, "trace": str(trace)}, seeds=1, tune={"reward": [0.2, 0.9], "instances": 2})
    moments = random.Random(5)
    for kill in range(3):
        done = len(scored(folder))

        def further(done: int = done) -> bool:
            return len(scored(folder)) > done

        kill_after(
            made, folder, further if kill % 2 else lambda: bool(made_completions(trace)), moments.uniform(0, 0.3)
        )
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


def test_a_population_of_the_study_under_way_outlives_a_sweep_that_grows(study: Make, tmp_path: Path) -> None:
    folder, trace = tmp_path / "out", tmp_path / "trace.txt"
    settings = {"updates_seconds": 0.05, "trace": str(trace)}
    tune = {"reward": [0.9], "instances": 1, "completions": 64}
    made = study(settings, seeds=1, budget={"completions": 320}, workers=1, tune=tune)
    kill_after(made, folder, lambda: made_completions(trace) > 4 + 6)  # 4 updates of the sweep, 20 of the study's cell
    done = made_completions(trace)
    assert done < 4 + 20
    grown = {**made, "tune": {**tune, "reward": [0.9, 0.1]}}
    assert run(grown, folder, progress=False).complete
    assert made_completions(trace) - done <= 4 + (24 - done) + 1  # the new settings, the rest, and what the kill cost


def test_a_sweep_is_shown_under_a_name_of_its_own(study: Make, tmp_path: Path) -> None:
    class Watch(Silent):
        shown: list[Progress] = []  # noqa: RUF012  # one watch only

        def show(self, progress: Progress) -> None:
            self.shown.append(progress)

    run(study(tune=SWEEP), tmp_path / "out", progress=(watch := Watch()))
    lines = [each.line() for each in watch.shown]
    assert lines[0].startswith("tuning cells 0/6 done")
    assert lines[-1].startswith("cells 2/2 done")
    last = [each for each in watch.shown if each.noun == "tuning cells"][-1]
    assert last.completions + last.spared == last.total_completions == 6 * 64 + 6 * 3 * 2


def test_a_part_tunes_its_own_tasks_only(study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fake_study

    monkeypatch.setattr(fake_study, "other", lambda: dataclasses.replace(fake_study.task("other"), source="o"), False)
    made = study(tasks=["fake_study:task", "fake_study:other"], tune=SWEEP, parts={"one": {"tasks": ["fake"]}}, seeds=1)
    planned = plan(made, tmp_path / "out", part="one")
    assert planned.sweep is not None
    assert {cell.task.name for cell in planned.sweep.cells} == {"fake"}
    result = run(made, tmp_path / "out", progress=False, part="one")
    assert result.complete
    assert [record.task for record in result.records.tuning] == ["fake"]
    assert {cell.task: cell.state for cell in result.records.cells} == {"fake": "done", "other": "pending"}


LISTED = {
    "name": "s", "tasks": [{"controlled": {"rho": 0, "alphabet": 4, "length": 3}}], "seeds": 1,
    "methods": {"linear": {"completions_each": 64, "learning_rate": 0.02}}, "budget": {"completions": 128},
    "preferences": {"grid": 1, "unseen": 0}, "tune": {"rank": [1, 4], "instances": 1}, "workers": 1,
}  # fmt: skip


def run_in_this_process(planned: Plan, folder: Path) -> PlannedCell:
    """Run the sweep's first cell without worker processes."""
    assert planned.sweep is not None
    cell = planned.sweep.cells[0]
    stages = [planned.sweep.by_key[key] for key in cell.stages]
    for members in populations(stages, workers=1):
        run_group(folder, begin_group(folder, members).folder, cell.task, quiet_link())
    score_cell(Scheduler(planned.sweep, 0, Silent())._cell_payload(cell, "score"), quiet_link())
    return cell


def test_an_exact_score_is_the_captured_share_on_development_prompts_and_test_prompts_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fake_study

    def guarded(job: dict[str, Any]) -> Task:
        found = job_task(job)
        return dataclasses.replace(found, splits=fake_study.Splits(found.splits))

    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setattr(tuning, "job_task", guarded)
    write_lock(tmp_path, planned_records(plan(LISTED, tmp_path)))
    planned = plan(LISTED, tmp_path)
    cell = run_in_this_process(planned, tmp_path)
    assert planned.sweep is not None
    assert planned.sweep.completions_to_evaluate == 0  # all completions are listed, none is sampled
    assert [each.state for each in plan(LISTED, tmp_path).sweep.cells] == ["finished", "new"]  # type: ignore[union-attr]
    found = read_score(tmp_path, cell.name)
    assert found.gained is not None
    assert found.possible is not None
    assert (found.gained <= found.possible).all()
    assert (found.possible > 0).all()
    assert (found.gained != 0).all()

    from paretune.models.solutions import SolutionSet
    from paretune.objectives.scoring import Scorer
    from paretune.optimum.exact import captured_share
    from paretune.rl.outcomes import outcomes, tables, truth

    rows, told = cell.task.splits["development"], cell.told  # the same along the way of a reported cell
    job = {
        "label": "linear", "source": "linear", "settings": cell.entry.settings, "budget": 128, "told": told.tolist(),
        "seed": 10_000, "training_key": cell.training_key,
    }  # fmt: skip
    _, assembly, _ = assemble(job, tmp_path, cell.task)
    solutions = SolutionSet.from_assembly(cell.task, assembly, "linear", "single-policy")
    log_reference, rewards = tables(cell.task, rows, Scorer(cell.task.objectives))
    assert cell.task.enumeration is not None
    reached = outcomes(
        solutions.policies_for(told), rows, cell.task.enumeration, log_reference, rewards, (1.0,)
    ).at_scale(1.0)
    known = truth(log_reference, rewards, told, cell.task.beta)
    solutions.bank.unwrap()
    share = captured_share(
        (reached[0] - cell.task.beta * reached[1][..., None]).mean(axis=1), known.reference_scores, known.scores, told
    )
    assert score([found], "captured_share") == pytest.approx(share)
    np.testing.assert_allclose(found.utilities, np.einsum("mk,mk->m", told, reached[0].mean(axis=1)))


@pytest.mark.slow
def test_a_controlled_task_is_tuned_by_captured_share_and_reported_with_what_was_chosen(tmp_path: Path) -> None:
    made = {
        **LISTED,
        "methods": {"linear": {"completions_each": 64}},
        "tune": {"learning_rate": [1e-6, 5e-3], "instances": 1},
    }
    result = run(made, tmp_path / "out", progress=False)
    assert result.complete
    (record,) = result.records.tuning
    assert (record.measure, record.chosen) == ("captured_share", 1)
    assert record.points[0].score == pytest.approx(0, abs=1e-2)  # a rate of nothing stays the base model
    (cell,) = plan(made, tmp_path / "out").cells
    assert (cell.entry.settings["learning_rate"], cell.state) == (5e-3, "finished")
    page = result.page.read_text()
    assert "How settings were chosen" in page
    assert "learning_rate=0.005" in page
    assert (result.page.parent / "tables" / "tuning.csv").is_file()
