"""Every file of a finished study, damaged: it is named, measured or written again, and nothing else is touched."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paretune.benchmark.plan import plan
from paretune.benchmark.runner import run
from paretune.benchmark.score import score
from paretune.benchmark.summary import plan_text, summary
from paretune.cli.main import OK, USAGE, execute
from paretune.core.errors import RecordError, StudyError, VersionError
from paretune.records.reading import read_study
from watched import Watch, contents

pytestmark = pytest.mark.usefixtures("only_what_is_named")

Make = Callable[..., dict[str, Any]]
EVERYTHING = ("stages", "runs", "references", "timing", "tuning")


def flipped(content: bytes) -> bytes:
    """Change one letter or digit in the middle, so that it may well be read."""
    return content.translate(bytes.maketrans(b"0123456789", b"1234567890"))


DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "gone": lambda content: None,
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "other": lambda content: b"[1, 2]",
    "flipped": flipped,
}
KINDS = [pytest.param(each, marks=[pytest.mark.slow] * (each in ("truncated", "other"))) for each in DAMAGE]
TABLES = {
    "runs/*/cell.json": "runs/",
    "runs/*/solution.json": "runs/",
    "runs/*/DONE.json": "runs/",
    "runs/*/evaluations/001.parquet": "evaluations",
    "runs/*/evaluations/DONE.json": "evaluations",
    "references/*/evaluation.parquet": "references/",
    "references/*/DONE.json": "references/",
    "timing/*/timing.json": "timing/",
    "timing/*/DONE.json": "timing/",
    "tuning/*/score.json": "tuning/",
    "tuning/*/DONE.json": "tuning/",
}
SLOW = (
    "runs/*/solution.json", "runs/*/evaluations/DONE.json", "references/*/DONE.json", "timing/*/DONE.json",
    "tuning/*/DONE.json", "runs/*/cell.json", "timing/*/timing.json",
)  # fmt: skip


@pytest.mark.parametrize("pattern", [pytest.param(each, marks=[pytest.mark.slow] * (each in SLOW)) for each in TABLES])
def test_a_damaged_file_of_a_table_is_named_and_measured_again_and_nothing_else_is_touched(
    study: Make, tmp_path: Path, pattern: str
) -> None:
    folder = tmp_path / "out"
    made = study(tune={"reward": [0.2, 0.9], "instances": 1})
    before = run(made, folder, progress=False)
    victim = sorted(folder.glob(pattern))[0]
    content, name = victim.read_bytes(), victim.relative_to(folder).as_posix()
    for kind, damage in DAMAGE.items():
        kept = contents(folder, *EVERYTHING)
        damaged = damage(content)
        victim.unlink() if damaged is None else victim.write_bytes(damaged)
        text = plan_text(plan(made, folder))
        (line,) = [line for line in text.splitlines() if line.startswith("damaged: ")]
        assert name.rpartition("/")[0] in line, kind
        assert victim.name in line, kind
        if not name.startswith("tuning/"):
            found = read_study(folder)
            said = [*found.missing.items(), *((cell.cell, cell.message) for cell in found.cells)]
            assert [each for each in said if victim.name in each[1]], kind
        watch = Watch()
        again = run(made, folder, progress=watch)
        assert again.complete, kind
        assert line in watch.said
        assert not again.records.missing
        cell = f"runs/{name.split('/')[1]}/" if name.startswith("runs/") else name.rpartition("/")[0]
        now = contents(folder, *EVERYTHING)
        assert now.keys() == kept.keys()
        assert {path: each for path, each in now.items() if not path.startswith(cell)}.items() <= kept.items(), kind
        assert [each.rewards.tolist() for cell in again.records.cells for each in cell.evaluations] == [
            each.rewards.tolist() for cell in before.records.cells for each in cell.evaluations
        ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_lock_is_written_again_by_run_and_named_with_that_command_by_the_others(
    study: Make, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    made = study(tune={"reward": [0.2, 0.9], "instances": 1})
    run(made, folder, progress=False)
    lock = folder / "study.lock.json"
    whole = lock.read_bytes()
    kept = contents(folder, *EVERYTHING)
    damaged = DAMAGE[kind](whole)
    lock.unlink() if damaged is None else lock.write_bytes(damaged)
    for reader in (read_study, score):
        with pytest.raises(
            RecordError, match=r"study.lock.json must .*Give `paretune run STUDY -o .*` once more"
        ) as caught:
            reader(folder)
        assert not isinstance(caught.value, VersionError)
    assert execute(["report", str(folder)]) == USAGE
    assert "Give `paretune run STUDY -o" in capsys.readouterr().err
    assert "study.lock.json is " in plan_text(plan(made, folder))
    watch = Watch()
    assert run(made, folder, progress=watch).complete
    assert any("study.lock.json is " in line and "It is written again." in line for line in watch.said)
    assert lock.read_bytes() == whole
    assert contents(folder, *EVERYTHING) == kept


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_copy_of_the_study_is_written_again(study: Make, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "out"
    run(study(), folder, progress=False)
    copy, kept = folder / "study.yaml", contents(folder, *EVERYTHING)
    whole = copy.read_bytes()
    damaged = DAMAGE[kind](whole)
    copy.unlink() if damaged is None else copy.write_bytes(damaged)
    assert run(study(), folder, progress=False).complete
    assert copy.read_bytes() == whole
    assert contents(folder, *EVERYTHING) == kept


def test_a_damaged_lock_of_another_study_is_not_taken_over(study: Make, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    run(study(), folder, progress=False)
    (folder / "study.lock.json").write_text("{")
    with pytest.raises(StudyError, match=r"got .* with the study 'fakes', not 'other'"):
        run(study(name="other"), folder, progress=False)


def test_a_folder_of_an_older_version_is_refused_with_one_sentence(study: Make, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    run(study(), folder, progress=False)
    (folder / "study.lock.json").write_text(json.dumps({"schema_version": 2, "name": "fakes"}))
    for call in (
        lambda: run(study(), folder, progress=False),
        lambda: plan(study(), folder),
        lambda: read_study(folder),
    ):
        with pytest.raises(VersionError, match=r"must have schema version 3, got 2. Use the paretune that wrote it"):
            call()


def test_a_timing_that_fails_costs_that_timing_alone_and_is_tried_again(
    study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    monkeypatch.setenv("FAKE_TIMING", "fails")
    failed = run(study(), folder, progress=False)
    assert not failed.complete
    assert {cell.state for cell in failed.records.cells} == {"done"}
    assert failed.records.timings == ()
    (missing,) = failed.records.missing.items()
    assert missing[0] == "timing/fake-fake"
    assert missing[1].startswith(
        "failed (method_error): measurement fake_study:FakeTiming must not raise, got ValueErr"
    )
    assert (
        "timing/fake-fake could not be measured (method_error): measurement fake_study:FakeTiming must not"
        in summary(failed)
    )
    kept = contents(folder, "stages", "runs", "references")
    monkeypatch.delenv("FAKE_TIMING")
    assert run(study(), folder, progress=False).complete
    assert [timing.method for timing in read_study(folder).timings] == ["fake"]
    assert contents(folder, "stages", "runs", "references") == kept


def test_a_method_is_timed_on_its_first_cell_that_did_not_fail(study: Make, tmp_path: Path) -> None:
    result = run(study({"trouble": "nan"}), tmp_path / "out", progress=False)
    assert {cell.seed: cell.state for cell in result.records.cells} == {0: "failed", 1: "done"}
    assert [timing.method for timing in result.records.timings] == ["fake"]
    shutil.rmtree(tmp_path / "out" / "timing")
    again = run(study({"trouble": "nan"}), tmp_path / "out", progress=False)
    assert [timing.method for timing in again.records.timings] == ["fake"]


def test_outcomes_that_fail_cost_that_measurement_of_that_cell_alone(study: Make, tmp_path: Path) -> None:
    """A policy of the fake method cannot be scaled, so its outcomes cannot be sampled."""
    folder = tmp_path / "out"
    made = study(seeds=1, evaluation={"kl_matched": True})
    result = run(made, folder, progress=False)
    (cell,) = result.records.cells
    assert (cell.state, len(cell.evaluations), cell.outcomes) == ("done", 4, None)
    (problem,) = result.problems
    assert problem.startswith(f"runs/{cell.cell}/outcomes could not be measured (")
    assert problem in summary(result)
    assert list(result.records.missing) == [f"runs/{cell.cell}/outcomes"]
    assert plan(made, folder).count("finished") == 1
    kept = contents(folder, "stages", "references", "timing", f"runs/{cell.cell}/evaluations")
    assert len(run(made, folder, progress=False).problems) == 1  # tried again
    assert contents(folder, "stages", "references", "timing", f"runs/{cell.cell}/evaluations") == kept


def test_report_and_score_name_damaged_evaluations(
    study: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    run(study(), folder, progress=False)
    victims = sorted(folder.glob("runs/*/evaluations/000.parquet"))
    for victim in victims:
        victim.write_bytes(victim.read_bytes() + b"x")
    assert execute(["report", str(folder)]) == OK
    said = capsys.readouterr().out
    assert "fake, 64 completions: nothing that can be used" in said
    assert execute(["score", str(folder)]) == OK
    left = capsys.readouterr().out
    for victim in victims:
        table = victim.parent.relative_to(folder)
        assert f"{table}: 000.parquet has changed since it was written" in said
        assert f"left as it is, since {table}: 000.parquet has changed since it was written; paretune run" in left
    assert "other completions" not in left


METRIC = """
import os

class Mine:
    name, title, unit, higher_is_better, needs = "mine", "Mine", "", True, ()

    def measure(self, study):
        with open(os.environ["CALLS"], "a") as file:
            file.write("x")
        return []
"""


def test_a_metric_of_the_users_is_called_once_a_report(
    study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    (tmp_path / "my_metric_of_calls.py").write_text(METRIC)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    run(study(metrics=["my_metric_of_calls:Mine"]), folder, progress=False)
    (tmp_path / "calls").unlink(missing_ok=True)
    assert execute(["report", str(folder)]) == OK
    assert (tmp_path / "calls").read_text() == "x"
