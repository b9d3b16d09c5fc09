from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

from compared_studies import records, source
from paretune.benchmark.compared_tables import rendered, write_compared
from paretune.benchmark.comparing import Compared, compared
from paretune.benchmark.latex import escaped
from paretune.benchmark.pairing import Source, pair

STEADY = {"mine": (0.60, 0.70, 0.81), "weight_grid": (0.60, 0.71, 0.80), "far": (0.1, 0.2, 0.3)}


def only(*sources: Source, subject: str = "mine") -> Compared:
    (lineup,) = pair(sources).lineups
    return compared(lineup, subject)


def test_text_names_ranks_intervals_and_what_is_told_apart() -> None:
    text = rendered([only(source("a", records(STEADY)))], ["b: other test prompts"], "text")
    lines = text.splitlines()
    assert lines[0] == "small, 100 completions"
    rows = {line.split("  ")[0]: line for line in lines[2:5]}
    assert list(rows) == ["mine", "weight_grid", "far"]  # means .7033, .7033 and .2
    assert [line.split()[1] for line in rows.values()] == ["1", "1", "3"]
    start = lines.index("mine less")
    apart = {line.split()[0]: line for line in lines[start + 2 : start + 4]}
    assert "*" in apart["far"]
    assert "+0.503 [+0.489, +0.518]*" in apart["far"]  # .5, .5, .51: mean 1.51/3, half .01/3 x 4.3027
    assert "*" not in apart["weight_grid"]
    assert "3 seeds (0, 1, 2), 2 test prompts and 1 preference each" in text
    assert "Student-t over 3 seed means" in text
    assert "Brackets are of one difference alone, so they may leave 0 out where there is no such mark." in text
    assert "not compared: b: other test prompts" in text


def test_one_seed_shows_no_rank_and_says_why() -> None:
    text = rendered([only(source("a", records({"mine": (0.6,), "linear": (0.1,)})))], [], "text")
    assert "One seed shows nothing of chance: no interval, no rank, no verdict." in text
    assert "–" in text.splitlines()[2]  # its rank
    assert "*" not in text
    assert "[" not in text


def test_latex_has_the_best_tie_group_bold_escapes_names_and_tells_the_test() -> None:
    text = rendered([only(source("a", records(STEADY)))], [], "latex")
    assert r"\toprule" in text
    assert r"\usepackage{booktabs}" in text
    rows = [line for line in text.splitlines() if line.startswith(("mine", r"weight\_grid", "far"))]
    assert len(rows) == 3
    assert [r"\textbf{0.70" in row for row in rows] == [True, True, False]
    assert "3 seeds (0, 1, 2), 2 test prompts" in text
    assert "Holm" in text
    assert "Bold: the best tie group" in text
    assert text.count("{") == text.count("}")


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("a_b & 5 %", r"a\_b \& 5 \%"),
        ("\\x{y}$#", r"\textbackslash{}x\{y\}\$\#"),
        ("~^", r"\textasciitilde{}\textasciicircum{}"),
        ("\u22120.1", "$-$0.1"),
    ],
)
def test_what_latex_would_read_is_escaped(text: str, printed: str) -> None:
    assert escaped(text) == printed


def test_csv_has_a_row_for_each_method_and_measure_with_full_precision() -> None:
    rows = list(csv.DictReader(io.StringIO(rendered([only(source("a", records(STEADY)))], [], "csv"))))
    (far,) = (row for row in rows if (row["method"], row["measure"]) == ("far", "utility"))
    assert float(far["mean"]) == pytest.approx(0.2)
    assert (far["against"], far["verdict"], far["rank"], far["seeds"]) == ("mine", "higher", "3", "3")
    assert float(far["difference"]) == pytest.approx(1.51 / 3)
    (spent,) = (row for row in rows if (row["method"], row["measure"]) == ("far", "completions"))
    assert float(spent["mean"]) == 100
    assert spent["against"] == ""


def test_costs_are_those_charged_and_the_base_model_has_none() -> None:
    study = records({"mine": (0.6, 0.7), "base": (0.2, 0.2)})
    cells = tuple(replace(cell, family="reference") if cell.method == "base" else cell for cell in study.cells)
    lines = rendered([only(source("a", replace(study, cells=cells)))], [], "text").splitlines()
    assert lines[1].split()[-2:] == ["completions", "FLOPs"]
    assert lines[2].split()[-2:] == ["100", "7.20e9"]  # 12 tokens a completion, 6e6 FLOPs a token
    assert lines[3].split()[0:2] == ["base", "reference"]
    assert lines[3].split()[-2:] == ["–", "–"]


def test_all_forms_are_written_with_every_pair(tmp_path: Path) -> None:
    files = write_compared(tmp_path / "out", [only(source("a", records(STEADY)))], ["b: other budget"])
    assert sorted(file.name for file in files) == [
        "comparison.md", "comparison.tex", "left_out.txt", "methods.csv", "pairs.csv",
    ]  # fmt: skip
    pairs = list(csv.DictReader(io.StringIO((tmp_path / "out" / "pairs.csv").read_text())))
    utility = [(row["first"], row["second"]) for row in pairs if row["measure"] == "utility"]
    assert utility == [("mine", "weight_grid"), ("mine", "far"), ("weight_grid", "far")]
    assert (tmp_path / "out" / "left_out.txt").read_text() == "b: other budget\n"
    assert "| mine |" in (tmp_path / "out" / "comparison.md").read_text()
