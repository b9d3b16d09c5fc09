from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import builders
import real_studies
from paretune.metrics import measure_all
from paretune.records.study import StudyRecords
from paretune.report import write_report
from paretune.report.comparison import comparisons
from paretune.report.findings import findings
from paretune.report.page import render_page
from paretune.report.sections import equal_kl, possible
from paretune.report.sections.equal_kl import kl_curves, kl_notes, kl_tables, optimum
from paretune.report.sections.possible import panels, share_table, volume_table
from paretune.report.view import View
from paretune.report.wording import MINUS

METHODS = (builders.CEILING, *builders.METHODS)


def exact_study(
    rhos: tuple[float, ...] = (0.6, -0.8), seeds: tuple[int, ...] = (0, 1), **settings: float
) -> StudyRecords:
    """Controlled tasks that differ in rho, in an order that is not theirs."""
    made = [
        builders.synthetic_study(
            seeds,
            METHODS,
            builders.task_info(f"task {rho:+g}", family_settings={"rho": rho, **settings}),
            exact=True,
            timed=False,
        )
        for rho in rhos
    ]
    return replace(
        made[0],
        tasks={name: info for each in made for name, info in each.tasks.items()},
        cells=tuple(cell for each in made for cell in each.cells),
        references={key: record for each in made for key, record in each.references.items()},
        truths={key: record for each in made for key, record in each.truths.items()},
    )


@pytest.fixture(scope="module")
def study() -> StudyRecords:
    return exact_study(heterogeneity=0.1)


def test_tasks_that_differ_in_rho_alone_make_one_line_a_method(study: StudyRecords) -> None:
    parts, rows = comparisons(study), measure_all(study)
    (panel,) = panels(parts, rows)
    assert panel.drawn
    assert panel.rhos == (-0.8, 0.6)
    assert panel.title == "6,000 completions, heterogeneity 0.1"
    (chart,) = possible.data(View(study, rows))["charts"]
    lines = chart.figure["data"]
    assert [line["name"] for line in lines] == [*builders.METHODS, f"{builders.CEILING} (ceiling)"]
    assert [line["line"]["dash"] for line in lines] == ["dot", "dash", "solid", "longdash"]  # by family
    told = {(row.task, row.method): row.value for row in rows if (row.metric, row.label) == ("captured_share", "")}
    for line in lines:
        for place, task in enumerate(("task -0.8", "task +0.6")):
            value = told[task, line["meta"]["method"]]
            assert value.high is not None
            assert value.value is not None
            assert line["y"][place] == value.value
            assert line["error_y"]["array"][place] == pytest.approx(value.high - value.value)
    # beside one another around their rho, the range of which is 1.4
    shifts = np.array([line["x"][0] + 0.8 for line in lines])
    assert shifts.sum() == pytest.approx(0)
    assert np.diff(shifts) == pytest.approx([0.012 * 1.4] * 3)


def test_other_settings_make_another_panel() -> None:
    near, far = exact_study(heterogeneity=0.1), exact_study(heterogeneity=0.9)
    renamed = {name + "'": replace(info, name=name + "'") for name, info in far.tasks.items()}
    both = replace(
        near,
        tasks={**near.tasks, **renamed},
        cells=near.cells + tuple(replace(cell, task=cell.task + "'") for cell in far.cells),
        truths={**near.truths, **{(name + "'", seed): truth for (name, seed), truth in far.truths.items()}},
    )
    found = panels(comparisons(both), measure_all(both, ["captured_share"]))
    assert [panel.title for panel in found] == [
        "6,000 completions, heterogeneity 0.1",
        "6,000 completions, heterogeneity 0.9",
    ]


def test_one_correlation_or_none_recorded_makes_a_table_and_no_figure() -> None:
    (panel,) = panels(comparisons(one := exact_study((0.3,))), measure_all(one, ["captured_share"]))
    assert not panel.drawn
    bare = exact_study()
    bare = replace(bare, tasks={name: replace(info, family_settings={}) for name, info in bare.tasks.items()})
    (panel,) = panels(comparisons(bare), measure_all(bare, ["captured_share"]))
    assert not panel.drawn
    assert share_table(panel, []).columns == ("method", "task +0.6", "task -0.8")


def test_tables_have_a_row_a_method_and_the_ceiling_last(study: StudyRecords) -> None:
    rows = measure_all(study)
    (panel,) = panels(comparisons(study), rows)
    shares, volumes = share_table(panel, rows), volume_table(panel, rows)
    assert shares.columns == ("method", "rho −0.8", "rho 0.6")
    assert volumes.columns[-1] == "scoring a policy"
    for table in (shares, volumes):
        assert [row[0] for row in table.rows] == [*builders.METHODS, builders.CEILING]
        assert all("[" in str(cell) for row in table.rows for cell in row[1:3])
    assert {row[-1] for row in volumes.rows} == {"0.50 s"}


def test_ordinary_tasks_have_no_panel_and_no_section() -> None:
    ordinary = builders.synthetic_study()
    assert panels(comparisons(ordinary), measure_all(ordinary)) == []
    page = render_page(ordinary, measure_all(ordinary))
    for section in ("possible", "overall"):
        assert f'<section id="{section}"' not in page
    assert "No policy was scored at several scales" in page


def test_the_page_of_a_controlled_study_has_its_sections_and_data(study: StudyRecords) -> None:
    page = render_page(study, measure_all(study))
    for section in ("overall", "possible", "kl"):
        assert f'<section id="{section}"' in page
    assert "What could be reached?" not in page  # it is known


def test_the_share_is_told_in_words_and_the_ceiling_apart(study: StudyRecords) -> None:
    part = comparisons(study)[0]
    said = {each.question: each.answer for each in findings(part, measure_all(study))}["How much of the possible gain?"]
    methods, ceiling = said.split(" The ceiling, trained without sampling noise: ")
    assert builders.CEILING not in methods
    assert ceiling.startswith(f"{builders.CEILING} 0.")
    assert "The largest share is that of" in methods


def test_a_ceiling_below_a_method_is_said_to_be_none() -> None:
    study = exact_study(rhos=(0.6,), seeds=(0, 1, 2))
    weak = tuple(
        replace(cell, outcomes=replace(cell.outcomes, rewards=cell.outcomes.rewards - 0.2))
        if cell.method == builders.CEILING and cell.outcomes
        else cell
        for cell in study.cells
    )
    told = []
    for records in (study, replace(study, cells=weak)):
        answers = findings(comparisons(records)[0], measure_all(records))
        told.append({each.question: each.answer for each in answers}["How much of the possible gain?"])
    assert "it lies below" not in told[0]
    first, second, third = builders.METHODS
    below = f"For the preferences it was trained for it lies below {first}, {second} and {third}, so it was not"
    assert below in told[1]


def test_shares_beyond_the_edge_of_the_figure_are_named(study: StudyRecords) -> None:
    far = tuple(
        replace(cell, outcomes=replace(cell.outcomes, rewards=cell.outcomes.rewards - 0.5))
        if cell.method == "linear" and cell.task == "task -0.8" and cell.outcomes
        else cell
        for cell in study.cells
    )
    for records, names in ((study, []), (replace(study, cells=far), ["linear"])):
        rows = measure_all(records, ["captured_share"])
        (panel,) = panels(comparisons(records), rows)
        outside = panel.outside(rows)
        assert [each.split()[0] for each in outside] == names
        assert all(each.endswith(f"at rho {MINUS}0.8") for each in outside)


def test_a_report_of_a_controlled_study_has_its_figures_and_its_table(
    tmp_path: Path, study: StudyRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_studies.without_figures(monkeypatch, drawn=("possible", "kl_1", "kl_2"))
    folder = write_report(tmp_path, study).parent
    names = {file.name for file in (folder / "figures").iterdir()}
    assert {"possible.svg", "possible.pdf", "possible.png", "kl_1.svg", "kl_2.svg"} <= names
    with (folder / "tables" / "controlled.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * 4
    assert {(line["rho"], line["ceiling"]) for line in lines if line["method"] == builders.CEILING} == {
        ("-0.8", "yes"),
        ("0.6", "yes"),
    }
    assert all(0 < float(line["captured_share"]) < 1 and line["seeds"] == "2" for line in lines)


def test_curves_start_at_the_base_model_and_end_at_the_policy(study: StudyRecords) -> None:
    parts = comparisons(study)
    for curve in kl_curves(parts[0], parts):
        assert curve.kl[0] == pytest.approx(0, abs=1e-12)
        assert list(curve.kl) == sorted(curve.kl)
        assert len(curve.kl) == len(curve.utilities) == 5
        assert curve.others == ()
    base = {curve.utilities[0].value for curve in kl_curves(parts[0], parts)}
    assert max(base) - min(base) < 1e-12  # type: ignore[type-var,operator]


def test_other_budgets_are_further_points() -> None:
    info = builders.task_info(family_settings={"rho": 0.0})
    small, large = (builders.synthetic_study((0, 1), METHODS, info, budget, exact=True) for budget in (1200, 6000))
    both = replace(small, cells=small.cells + large.cells)
    parts = comparisons(both)
    for curve in kl_curves(parts[0], parts):
        if curve.method.ceiling:  # it costs no budget, so there is no other
            assert curve.others == ()
        else:
            ((budget, kl, value),) = curve.others
            assert (budget, kl) == (6000, pytest.approx(curve.kl[-1]))
            assert value.value == pytest.approx(curve.utilities[-1].value)


def test_the_best_policies_are_drawn_where_they_are_known(study: StudyRecords) -> None:
    parts = comparisons(study)
    best = optimum(parts[0], study)
    assert best is not None
    ends = {curve.method.name: curve.utilities[-1].value for curve in kl_curves(parts[0], parts)}
    assert best[1] is not None
    assert all(value is not None and value < best[1] for value in ends.values())
    known, unknown = (View(each, []) for each in (study, replace(study, truths={})))
    stars = [
        sum(trace["name"] == "the best policies" for trace in equal_kl.data(view.parts[0])["charts"][0].figure["data"])
        for view in (known, unknown)
    ]
    assert stars == [1, 0]


def test_differences_at_equal_kl_are_to_the_best_method_and_never_to_the_ceiling(study: StudyRecords) -> None:
    part, rows = comparisons(study)[0], measure_all(study)
    utilities, differences = kl_tables(part, rows)
    assert len(utilities.columns) == len(differences.columns) == 5
    for column in range(1, 5):
        cells = {str(row[0]): str(row[column]) for row in differences.rows}
        assert list(cells.values()).count("highest method") == 1
        assert cells[builders.CEILING] != "highest method"
        assert sum(cells[name].startswith("−") for name in builders.METHODS) == 2
    assert kl_notes(part, rows) == []


def test_differences_at_equal_kl_are_paired_by_seed() -> None:
    rows = measure_all(study := exact_study((0.0,), (0, 1, 2)), ["kl_matched"])
    (part,) = comparisons(study)
    first = next(row.label for row in rows if row.label.startswith("utility"))
    values = {row.method: row.value.per_seed for row in rows if row.label == first}
    table = kl_tables(part, rows)[1]
    best = next(str(row[0]) for row in table.rows if row[1] == "highest method")
    other = next(name for name in builders.METHODS if name != best)
    gaps = [values[other][seed] - values[best][seed] for seed in range(3)]
    mean = sum(gaps) / 3
    half = 4.302653 * (sum((gap - mean) ** 2 for gap in gaps) / 2 / 3) ** 0.5
    cell = next(str(row[1]) for row in table.rows if row[0] == other).replace("−", "-")
    shown = [float(each) for each in re.findall(r"[+-]\d\.\d+", cell)]
    assert shown == pytest.approx([mean, mean - half, mean + half], abs=6e-4)  # three decimals are shown
