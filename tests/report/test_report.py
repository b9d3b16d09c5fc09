from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

import builders
from paretune import report
from paretune.core.errors import RecordError
from paretune.metrics import measure_all
from paretune.records.study import StudyRecords
from paretune.report import summary_table, write_report
from paretune.report.section import blocks, named_charts
from paretune.report.sections import SECTIONS
from paretune.report.static import write_charts
from paretune.report.view import View


def figures_of(study: StudyRecords, folder: Path) -> list[Path]:
    view = View(study, measure_all(study))
    return write_charts(named_charts(blocks(view, SECTIONS), 1), folder)


def test_a_report_is_one_page_with_tables_and_figures_beside_it(tmp_path: Path) -> None:
    page = write_report(tmp_path, builders.synthetic_study())
    assert page == tmp_path / "report" / "index.html"
    files = {file.relative_to(page.parent).as_posix() for file in page.parent.rglob("*") if file.is_file()}
    names, endings = ("front", "performance", "training"), ("svg", "pdf", "png")
    figures = {f"figures/{name}.{ending}" for name in names for ending in endings}
    assert files >= {"index.html", "tables.csv", "tables.md", "results.parquet"} | figures
    text = page.read_text("utf-8")
    assert all(f'href="{file}"' in text for file in files - {"index.html"})


@pytest.mark.slow
def test_a_report_is_written_twice_the_same(tmp_path: Path) -> None:
    study = builders.synthetic_study(seeds=(0, 1))
    first, second = write_report(tmp_path / "a", study).parent, write_report(tmp_path / "b", study).parent
    for name in ("index.html", "tables.csv", "tables.md", "figures/front.svg"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_a_folder_that_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"must be a study"):
        write_report(tmp_path)


def test_figures_survive_names_that_look_like_mathematics_or_lack_a_glyph(tmp_path: Path) -> None:
    info = builders.task_info(
        preferences=[[1, 0], [0, 1]], objectives=("$x_", "友達"), audit=(), test_prompts=1, samples=1
    )
    answers = [builders.evaluation([[0.5, 0.6]], each, ("$x_", "友達")) for each in info.preferences]
    study = builders.study([builders.cell(seed=seed, evaluations=answers) for seed in (0, 1)], [info])
    files = figures_of(study, tmp_path)
    assert {file.name for file in files} >= {"front.svg", "front.pdf", "performance.svg"}
    for file in files:
        if file.suffix == ".svg":
            ElementTree.parse(file)


def test_figures_without_a_finished_cell_are_left_out(tmp_path: Path) -> None:
    pending = [(method, seed) for method in builders.METHODS for seed in range(3)]
    study = builders.synthetic_study(pending=pending, timed=False)
    assert figures_of(study, tmp_path) == []


def test_the_terminal_table_has_one_aligned_line_per_method() -> None:
    title, heads, *lines = summary_table(builders.synthetic_study(failed={("linear", 1): "crash"})).splitlines()
    assert title == "counselling, 6,000 completions"
    assert [line.split()[0] for line in lines] == list(builders.METHODS)
    assert len({len(line) for line in [heads, *lines]}) == 1
    assert lines[0].endswith("2/3")
    assert "5,600" in lines[0]
    assert heads.split("  ")[0] == "method"
    place = heads.index("policies") + len("policies")
    assert [line[:place].split()[-1] for line in lines] == ["4", "4", "3"]  # corners and centre; corners
    assert "0.900" in lines[0]


def test_the_terminal_table_shows_a_dash_for_what_was_not_measured() -> None:
    *_, last = summary_table(builders.synthetic_study(seeds=(0,), timed=False)).splitlines()
    assert "[" not in last  # one seed: no interval
    assert last.split()[-2] == "–"


def test_the_terminal_shows_captured_shares_where_the_optimum_is_known() -> None:
    from paretune.metrics import measure_all
    from paretune.report.wording import interval

    study = builders.synthetic_study(methods=(*builders.METHODS, builders.CEILING), exact=True)
    shares = {row.method: row.value for row in measure_all(study, ["captured_share"]) if row.label == ""}
    _, heads, *lines = summary_table(study).splitlines()
    assert "captured share" in heads
    assert all(interval(shares[line.split()[0]]) in line for line in lines)
    assert "captured share" not in summary_table(builders.synthetic_study())
    (ceiling,) = (line for line in lines if line.startswith(builders.CEILING))
    assert "not charged" in ceiling


def test_the_terminal_says_of_a_task_that_has_not_run_that_alone() -> None:
    one, two = (builders.synthetic_study(task=builders.task_info(name)) for name in ("one", "two"))
    idle = [replace(cell, state="pending", evaluations=(), stages=()) for cell in two.cells]
    study = replace(one, tasks={**one.tasks, **two.tasks}, cells=(*one.cells, *idle))
    *_, empty, last = summary_table(study).splitlines()
    assert (empty, last) == ("", "two, 6,000 completions: not run yet")


def test_files_of_the_report_take_no_private_name_from_each_other() -> None:
    for file in Path(report.__file__).parent.rglob("*.py"):
        taken = [
            alias.name
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        ]
        assert not [name for name in taken if name.startswith("_")], file.name
