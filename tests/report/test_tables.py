from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import builders
from paretune.core.protocols import MetricRow, MetricValue
from paretune.metrics import measure_all
from paretune.records.study import StudyRecords
from paretune.report.tables import (
    Table,
    all_tables,
    costs_table,
    preferences_table,
    results_table,
    seeds_table,
    stages_table,
    to_csv,
    to_markdown,
    write_tables,
)

NAMES = ("kind", "short")


def two_seeds() -> StudyRecords:
    """One method, two seeds, the two corners; seed 1 lacks one reward."""
    info = builders.task_info(preferences=[[1, 0], [0, 1]], objectives=NAMES, audit=(), test_prompts=2, samples=1)
    rewards = {
        (0, 0): [[0.6, 0.2], [0.8, 0.2]],  # kind .7, short .2
        (0, 1): [[0.1, 0.9], [0.1, 0.7]],  # kind .1, short .8
        (1, 0): [[0.5, 0.2], [np.nan, 0.4]],  # kind .5 from one reward, short .3
        (1, 1): [[0.2, 0.6], [0.2, 0.6]],  # kind .2, short .6
    }
    expert = [
        builders.stage("a", 100, seconds=4.0),
        builders.stage("b", 50, needs=[builders.stage("a").key], seconds=2.0),
    ]
    cells = [
        builders.cell(
            seed=seed,
            evaluations=[builders.evaluation(rewards[seed, row], info.preferences[row], NAMES) for row in range(2)],
            stages=expert,
        )
        for seed in (0, 1)
    ]
    base = {("counselling", 0): builders.evaluation([[0.4, 0.4], [0.4, 0.4]], None, NAMES)}
    return builders.study(cells, [info], base)


def rows_as_dicts(table: Table) -> list[dict[str, object]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_utilities_per_preference_are_means_over_seeds_with_student_intervals() -> None:
    rows = rows_as_dicts(preferences_table(two_seeds()))
    kind = next(row for row in rows if row["method"] == "linear" and row["preference"] == "kind")
    assert kind["utility"] == pytest.approx((0.7 + 0.5) / 2, abs=1e-12)
    # two seeds .7 and .5: standard error .1, t(1 degree of freedom, .975) = 12.7062
    assert kind["low"] == pytest.approx(0.6 - 1.27062, abs=1e-5)
    assert kind["high"] == pytest.approx(0.6 + 1.27062, abs=1e-5)
    assert kind["seeds"] == 2
    base = next(row for row in rows if row["method"] == "base model" and row["preference"] == "short")
    assert (base["utility"], base["low"], base["seeds"]) == (pytest.approx(0.4), None, 1)
    assert base["reason"] == "one seed: no interval"


def test_costs_add_up_all_stages_and_the_longest_chain() -> None:
    study = two_seeds()
    (row,) = rows_as_dicts(costs_table(study, measure_all(study)))
    assert row["completions"] == 150
    assert row["policies"] == 2
    assert row["seconds_sum"] == pytest.approx(6.0)
    assert row["seconds_longest_chain"] == pytest.approx(6.0)  # b waits for a
    assert row["speed_relative_to_base"] is None


def test_a_stage_that_cells_share_is_listed_once_with_its_users() -> None:
    rows = rows_as_dicts(stages_table(two_seeds()))
    assert [(row["completions"], row["cells"], row["used_by"]) for row in rows] == [
        (100, 2, "linear"),
        (50, 2, "linear"),
    ]


def test_every_planned_cell_has_a_row_with_its_state_and_reason() -> None:
    study = builders.synthetic_study(failed={("linear", 1): "crash"}, pending=[("weight_grid", 2)])
    rows = rows_as_dicts(seeds_table(study))
    states = {(row["method"], row["seed"]): (row["state"], row["reason"], row["utility"]) for row in rows}
    assert len(states) == 9
    assert states["linear", 1] == ("failed", "crash", None)
    assert states["weight_grid", 2] == ("pending", "", None)
    assert states["linear", 0][0] == "done"
    assert states["linear", 0][2] is not None


def test_results_keep_value_interval_seeds_and_reason_of_every_metric_row() -> None:
    value = MetricValue(0.5, 0.25, 0.75, {0: 0.4, 1: 0.6})
    gap = MetricValue(None, reason="no cells")
    table = results_table([MetricRow("t", "m", 10, "p", value, "x"), MetricRow("t", "n", 10, "p", gap)])
    assert table.rows == (
        ("t", 10, "m", "p", "x", 0.5, 0.25, 0.75, 2, ""),
        ("t", 10, "n", "p", "", None, None, None, 0, "no cells"),
    )


def test_csv_keeps_full_precision_and_leaves_missing_numbers_empty() -> None:
    text = to_csv(Table("n", "t", ("a", "b", "c"), ((1 / 3, None, 7),)))
    (row,) = list(csv.DictReader(io.StringIO(text)))
    assert float(row["a"]) == 1 / 3
    assert (row["b"], row["c"]) == ("", "7")


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_a_name_that_a_spreadsheet_would_run_is_written_as_text(start: str) -> None:
    text = to_csv(Table("n", "t", ("name", "value"), ((f"{start}cmd", -0.5),)))
    assert list(csv.reader(io.StringIO(text)))[1] == [f"'{start}cmd", "-0.5"]


def test_markdown_escapes_markup_and_line_breaks() -> None:
    line = to_markdown(Table("n", "t", ("name",), (("a|b<img>\nc*d",),))).splitlines()[-1]
    assert line == r"| a\|b\<img\> c\*d |"


def test_parquet_holds_one_row_per_seed_preference_and_objective(tmp_path: Path) -> None:
    write_tables(two_seeds(), [], tmp_path)
    rows = pq.read_table(tmp_path / "results.parquet").to_pylist()
    assert len(rows) == 2 * 2 * 2
    row = next(row for row in rows if (row["seed"], row["preference"], row["objective"]) == (1, [1.0, 0.0], "kind"))
    assert row["mean_reward"] == pytest.approx(0.5)
    assert (row["n"], row["n_missing"], row["audit"], row["method"]) == (1, 1, False, "linear")


def test_all_tables_are_written_and_every_row_is_as_long_as_its_columns(tmp_path: Path) -> None:
    study = builders.synthetic_study(missing=1)
    rows = measure_all(study)
    files = write_tables(study, rows, tmp_path)
    names = {file.relative_to(tmp_path).as_posix() for file in files}
    assert names == {"tables.csv", "tables.md", "results.parquet"} | {
        f"tables/{name}.csv" for name in ("preferences", "seeds", "costs", "stages")
    }
    for table in all_tables(study, rows):
        assert all(len(row) == len(table.columns) for row in table.rows), table.name
    assert len(list(csv.reader(io.StringIO((tmp_path / "tables.csv").read_text("utf-8"))))) == len(rows) + 1
    json.dumps([table.rows for table in all_tables(study, rows)])  # plain values only


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\n=1", "'\n=1"),
        ("\r=1", "\\r=1"),
        ("＝1", "'＝1"),
        ("-5", "-5"),
        ("-0.25", "-0.25"),
        ("+1.5e-3", "+1.5e-3"),
        ("a=1", "a=1"),
        ("\x1b[31m", "\\x1b[31m"),
        (-5, "-5"),
        (-0.25, "-0.25"),
        (None, ""),
    ],
)
def test_a_text_that_begins_a_formula_is_quoted_and_a_number_stays_one(text: str | float | None, cell: str) -> None:
    table = Table("a", "A", ("name", "=column"), ((text, "x"),))
    head, row = csv.reader(io.StringIO(to_csv(table), newline=""))
    assert (head, row) == (["name", "'=column"], [cell, "x"])


def test_control_characters_are_written_out_in_markdown() -> None:
    assert "\\x1b\\[31m" in to_markdown(Table("a", "A", ("name",), (("\x1b[31m",),))).replace("\\\\", "\\")
