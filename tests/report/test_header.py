from __future__ import annotations

import html
from dataclasses import replace
from pathlib import Path

import pytest

import builders
from paretune.metrics.configuration import configuration_check
from paretune.records.study import StudyRecords
from paretune.report import write_report
from paretune.report.comparison import comparisons
from paretune.report.completeness import started_parts, warnings
from paretune.report.header import commands, configuration_figure, key_figures, unequal
from paretune.report.page import render_page


def test_beta_of_a_controlled_task_is_one_per_seed() -> None:
    details = []
    for settings in ({}, {"rho": 0.6}):
        records = builders.synthetic_study(seeds=(0,), task=builders.task_info(family_settings=settings))
        (figure,) = (figure for figure in key_figures(records, comparisons(records)) if figure["name"] == "base model")
        details.append(figure["detail"])
    assert details == [
        "KL coefficient beta 0.05; judged on utility", "KL coefficient beta, one per seed; judged on utility",
    ]  # fmt: skip


@pytest.mark.usefixtures("no_figures")
def test_a_report_beside_no_study_file_says_how_it_is_merged_again(tmp_path: Path) -> None:
    records = builders.synthetic_study(seeds=(0,))
    assert commands(records) == ["paretune report DIR DIR -o OUT"]
    here = replace(records, folder=tmp_path)
    assert commands(here)[0] == "paretune run study.yaml -o ."
    own, elsewhere = (write_report(folder, here).read_text() for folder in (tmp_path, tmp_path / "elsewhere"))
    for page, merged in ((own, False), (elsewhere, True)):
        assert ("paretune report DIR DIR -o OUT" in page) is merged
        assert ("paretune run study.yaml" in page) is not merged


def in_parts(done: set[int], failed: bool = False) -> StudyRecords:
    """Return a study with a part for each of two seeds, of which only some have run."""
    whole = builders.synthetic_study(seeds=(0, 1), failed={("linear", 0): "crash"} if failed else None)
    cells = tuple(
        cell if cell.seed in done else replace(cell, state="pending", evaluations=(), stages=()) for cell in whole.cells
    )
    names = list(whole.tasks)
    parts = {"one": {"tasks": names, "seeds": [0]}, "two": {"tasks": names, "seeds": [1]}}
    return replace(whole, cells=cells, resolved={**whole.resolved, "parts": parts})


def test_the_report_of_a_part_names_it_and_runs_it_alone(tmp_path: Path) -> None:
    records = replace(in_parts({1}), folder=tmp_path / "b")
    assert commands(records) == [
        "paretune run study.yaml --part two -o .",
        "paretune run study.yaml --part two -o ../b-again",
        "paretune report .",
    ]
    said = warnings(records, comparisons(records))
    assert said[0].startswith("This folder holds part two of the study, and not one. Run those too;")
    assert not any(each.startswith("Incomplete") for each in said)  # all there is of part two
    assert any(each.startswith("Only 1 seed: one run shows no spread") for each in said)


def test_what_a_part_lacks_is_counted_within_it() -> None:
    said = warnings(in_parts({0}, failed=True), comparisons(in_parts({0}, failed=True)))
    assert any(each.startswith("Incomplete: 1 cell failed of 3.") for each in said)


def test_a_study_of_which_all_parts_have_run_is_like_any_other(tmp_path: Path) -> None:
    records = replace(in_parts({0, 1}), folder=tmp_path / "b")
    assert commands(records)[0] == "paretune run study.yaml -o ."
    assert not any("This folder holds" in each for each in warnings(records, comparisons(records)))


def test_a_merged_report_names_the_folders_it_was_made_of() -> None:
    records = replace(in_parts({0, 1}), merged_from=("a", "my parts/b"))
    assert commands(records) == ["paretune report a 'my parts/b' -o OUT"]


def test_a_cell_that_two_parts_share_starts_neither_of_them_alone() -> None:
    whole = in_parts({0})
    names = list(whole.tasks)
    parts = {"one": {"tasks": names, "seeds": [0]}, "both": {"tasks": names, "seeds": [0, 1]}}
    found = replace(whole, resolved={**whole.resolved, "parts": parts})
    assert started_parts(found) == (["one"], ["both"])  # all of one lies in both too; of both, seed 1 has not run


def test_what_is_said_to_be_scored_exactly_is_what_can_be_listed() -> None:
    details = []
    for listed, settings in ((True, {}), (False, {"rho": 0.6})):
        info = replace(builders.task_info(family_settings=settings), listed=listed)
        records = replace(builders.synthetic_study(seeds=(0,)), tasks={info.name: info})
        (figure,) = (
            figure for figure in key_figures(records, comparisons(records)) if figure["name"] == "test prompts"
        )
        details.append("scored over all completions" in figure["detail"])
    assert details == [True, False]


def test_whether_compared_cells_were_run_alike_stands_at_the_top() -> None:
    records = builders.synthetic_study(seeds=(0, 1))
    (alike,) = configuration_figure(configuration_check(records))
    assert (alike["name"], alike["value"], alike["link"]) == ("configurations", "identical", "#trust")
    assert unequal(configuration_check(records)) == []
    smaller = {"completions_per_update": 64, "group_size": 4}
    other = [
        replace(cell, stages=tuple(replace(stage, settings=smaller) for stage in cell.stages))
        if cell.method == "linear"
        else cell
        for cell in records.cells
    ]
    found = configuration_check(replace(records, cells=tuple(other)))
    (differs,) = configuration_figure(found)
    assert (differs["value"], differs["detail"].split(";")[0]) == ("1 item differs", "group")
    (said,) = unequal(found)
    assert said.startswith("counselling, 6,000 completions: differing group: 4 completions a prompt (linear)")
    assert said in html.unescape(render_page(replace(records, cells=tuple(other)), []))
    assert configuration_figure([]) == []


def test_other_hardware_is_counted_and_no_banner() -> None:
    records = builders.synthetic_study(seeds=(0, 1))
    another = {**records.cells[0].environment, "cpu": "another", "cores": 2}
    moved = [replace(cell, environment=another) if cell.method == "linear" else cell for cell in records.cells]
    found = configuration_check(replace(records, cells=tuple(moved)))
    (figure,) = configuration_figure(found)
    assert "hardware" in figure["detail"]
    assert unequal(found) == []
