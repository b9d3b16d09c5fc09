from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from builders import synthetic_study
from compared_studies import records
from paretune.benchmark import baselines
from paretune.cli.main import OK, SOME_FAILED, USAGE, execute
from paretune.records.per_prompt import write_per_prompt
from paretune.records.writing import write_lock

Refused = Callable[[Sequence[str]], str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with records of a study of one's own, and built-in ones named `roster`."""
    shipped = tmp_path / "shipped"
    write_per_prompt(records({"mine": (0.6, 0.7, 0.8), "one_policy": (0.4, 0.4, 0.5)}), tmp_path / "mine.parquet")
    write_per_prompt(records({"linear": (0.2, 0.3, 0.4), "one_policy": (0.4, 0.4, 0.5)}), shipped / "roster.parquet")
    known = {path.stem: path for path in shipped.glob("*.parquet")}
    monkeypatch.setattr(baselines, "built_in_baselines", lambda: known)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert execute(arguments) == OK
    return capsys.readouterr().out


def test_ones_own_method_is_held_against_built_in_records(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "compare", "mine.parquet", "--with", "roster")
    assert "mine less" in text  # the method that only the first source has
    assert "+0.400 [+0.400, +0.400]*" in text  # mine less linear, .4 at each seed
    assert "one_policy of roster: made as that of mine.parquet, which stands for both" in text


def test_methods_are_named_with_a_study(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "compare", "--study", "mine.parquet", "one_policy", "mine")
    assert "one_policy less" in text
    both = printed(capsys, "compare", "--study", "mine.parquet", "--with", "roster", "linear", "mine")
    assert "linear less" in both
    assert "one_policy" not in both


def test_forms_are_printed_and_written(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "compare", "mine.parquet", "--format", "csv").startswith("task,budget_completions,feedback,")
    assert r"\begin{table}" in printed(capsys, "compare", "mine.parquet", "--format", "latex")
    assert "| mine | 1 |" in printed(capsys, "compare", "mine.parquet", "--format", "md")
    assert execute(["compare", "mine.parquet", "-o", "out"]) == OK
    assert "pairs.csv" in capsys.readouterr().err
    assert (home / "out" / "pairs.csv").is_file()


def test_what_cannot_be_paired_at_all_is_refused_with_the_reasons(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = records({"linear": (0.2, 0.3)}, tested={"test prompts": "p2"})
    write_per_prompt(other, home / "other.parquet")
    write_per_prompt(records({"mine": (0.6, 0.7)}), home / "single.parquet")
    assert execute(["compare", "single.parquet", "other.parquet"]) == USAGE
    said = capsys.readouterr().err
    assert "got none that can be paired: other.parquet on small at 100: other test prompts (linear seed 0" in said
    assert execute(["compare", "--study", "mine.parquet", "--with", "roster", "linear", "linaer"]) == USAGE
    assert "must be one of linear, mine, one_policy, got 'linaer'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare"], "compare must be given a study, got none."),
        (["compare", "gone"], "'gone' must be the folder of a study or a file of its records, got no such path."),
        (["compare", "gone", "gone"], "sources to compare must be different ones, got 'gone' twice."),
        (["status", "gone"], "gone must be a study, got no study.lock.json in it."),
    ],
)
def test_mistakes_are_refused_in_a_line(refused: Refused, arguments: list[str], said: str) -> None:
    assert said in refused(arguments)


def test_a_name_of_no_built_in_records_lists_those_there_are(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["compare", "mine.parquet", "--with", "rooster"]) == USAGE
    assert (
        "records to compare with must be one of roster, got 'rooster'. Did you mean 'roster'?"
        in capsys.readouterr().err
    )


def test_a_name_where_no_records_ship_is_told_how_to_make_them(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(baselines, "built_in_baselines", dict)
    assert execute(["compare", "mine.parquet", "--with", "controlled"]) == USAGE
    said = capsys.readouterr().err
    assert "got 'controlled', and no records ship with this copy of paretune. Make them with `paretune run" in said


def test_status_is_told_as_text_and_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lock(tmp_path, synthetic_study())
    assert execute(["status", str(tmp_path)]) == SOME_FAILED
    assert "stopped before its end\ncells: 0 done, 9 pending of 9\n" in capsys.readouterr().out
    assert execute(["status", str(tmp_path), "--json"]) == SOME_FAILED
    found = json.loads(capsys.readouterr().out)
    assert (found["state"], found["cells"]["pending"]) == ("stopped", 9)
