"""`paretune probe`: what it prints and writes, and how it says no."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import micro_task
from paretune.cli.main import OK, execute
from paretune.cli.relations import StepLines


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return micro_task.save_task(tmp_path_factory.mktemp("task") / "letters").parent


def test_a_probe_prints_a_matrix_per_level_and_says_where_the_files_are(
    task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert execute(["probe", str(task), "--samples", "512"]) == OK
    captured = capsys.readouterr()
    assert captured.out.startswith("letters, seed 0: 512 completions of the base model (8 training prompts x 64)\n")
    assert "rewards: rank correlation within prompts" in captured.out
    assert "gradients: cosine of policy gradients" in captured.out
    assert "missing: no policy was trained for one objective alone." in captured.out
    files = sorted(path.name for path in (tmp_path / "results" / "probe-letters").iterdir())
    assert files == ["relations.json", "relations.pdf", "relations.png", "relations.svg"]
    assert "results/probe-letters/relations.json" in captured.out
    assert "sampling and scoring: 512 of 512\n" in captured.err
    assert "computing gradients: 512 of 512\n" in captured.err


def test_json_is_what_the_file_holds(task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["probe", str(task), "--samples", "256", "-o", str(tmp_path), "--pilot", "64", "--json"]) == OK
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "relations.json").read_text())
    assert printed["cost"]["pilot"]["completions"] == 128
    assert set(printed) > {"rewards", "gradients", "outcomes", "margin"}


def test_a_pilot_is_printed_with_what_it_was_charged(
    task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["probe", str(task), "--samples", "256", "-o", str(tmp_path), "--pilot", "64"]) == OK
    printed = capsys.readouterr().out
    assert "from a pilot of 64 completions for each objective" in printed
    assert "charged 128 completions" in printed
    assert "one seed, so without labels. For labels run a study of this task with three seeds or more" in printed
    assert "give its folder (--from STUDY)." in printed
    assert "note: first and second: one seed: no interval" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["counselling", "--seed", "-1"], "paretune: --seed must be a whole number from 0 on, got -1."),
        (["counseling"], "paretune: task must be one of controlled, counselling, the path of a task.yaml"),
        (["counselling", "--samples", "100"], "paretune: samples (--samples) must be at least 256"),
        (
            ["counselling", "--pilot", "1"],
            "paretune: pilot (--pilot) must be at least 8 completions for each objective",
        ),
        (["counselling", "--from", "gone"], "paretune: gone must be a study, got no study.lock.json in it."),
        (
            ["counselling", "--from", "gone", "--pilot", "64"],
            "paretune: outcomes must come from one source, got study (--from)",
        ),
        (
            ["counselling", "--method", "weight_grid"],
            "paretune: method (--method) must be one of a study (--from), got 'weight_grid' without a study.",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, refused: Callable[[Sequence[str]], str]
) -> None:
    assert refused(["probe", *arguments]).startswith(message)


def test_progress_lines_mark_beginnings_and_ends_only_of_what_is_quick(capsys: pytest.CaptureFixture[str]) -> None:
    show = StepLines()
    for done in range(5):
        show("sampling", done, 4)
    show("computing", 1, 2)
    assert capsys.readouterr().err == "sampling: 0 of 4\nsampling: 4 of 4\ncomputing: 1 of 2\n"
