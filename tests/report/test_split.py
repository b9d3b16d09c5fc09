from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import builders
import real_studies
from paretune.metrics import measure_all
from paretune.records.study import StudyRecords, TuningPoint, TuningRecord
from paretune.report import write_report
from paretune.report.page import render_page
from paretune.report.sections.split import split_charts, split_curves, split_sentence, split_table
from paretune.report.view import View


def swept(method: str = "linear", rates: tuple[float, ...] = (0.1, 0.2)) -> TuningRecord:
    """Rate .2 is better by .1, and 1,000 completions each better than 500 and 2,000."""
    points = tuple(
        TuningPoint(
            {"learning_rate": rate, "completions_each": each},
            rate + best,
            {10_000: rate + best - 0.01, 10_001: rate + best + 0.01},
        )
        for rate in rates
        for each, best in ((2000, 0.3), (500, 0.2), (1000, 0.4))
    )
    return replace(builders.tuning(method=method), points=points, chosen=len(points) - 1, measure="captured_share")


def of(*records: TuningRecord) -> StudyRecords:
    return replace(builders.synthetic_study(), tuning=records)


def test_a_curve_is_of_the_other_settings_that_were_chosen_in_the_order_of_the_split() -> None:
    (curve,) = split_curves([swept()])
    assert list(curve.points) == [500, 1000, 2000]
    assert [value.value for value in curve.points.values()] == pytest.approx([0.4, 0.6, 0.5])
    assert curve.chosen == 1000
    # two instances .02 apart: t = 12.706, standard error .01
    assert curve.points[500].high == pytest.approx(0.4 + 12.706 * 0.01, abs=1e-5)


def test_a_sweep_that_tried_one_split_or_none_or_chose_nothing_has_no_curve() -> None:
    one = replace(swept(), points=swept().points[2:3], chosen=0)
    assert split_curves([builders.tuning(), one, replace(swept(), chosen=None)]) == []
    study = of(builders.tuning())
    assert split_table(study) is None
    assert split_charts(View(study, [])) == []
    assert split_sentence(study) == ""


def test_a_split_without_a_score_keeps_its_row_and_leaves_the_curve() -> None:
    points = [*swept().points[:3], replace(swept().points[3], score=None, per_seed={10_000: None, 10_001: None})]
    record = replace(swept(), points=(*points, *swept().points[4:]))
    table = split_table(of(record))
    assert table is not None
    assert [row[5] for row in table.rows] == pytest.approx([0.4, 0.6, None])
    (chart,) = split_charts(View(of(record), []))
    assert chart.figure["data"][0]["x"] == [500, 1000]  # of the rate that was chosen; 2,000 has no score


def test_the_report_shows_the_split_as_curve_table_and_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_studies.without_figures(monkeypatch, drawn=("appendix",))
    study = of(swept(), swept("weight_grid"), builders.tuning(method="rewarded_soups"))
    table = split_table(study)
    assert table is not None
    assert table.rows[1][:6] == ("counselling", "linear", 6000, 1000, "captured share", pytest.approx(0.6))
    assert [row[-1] for row in table.rows] == ["no", "yes", "no"] * 2
    said = split_sentence(study)
    assert "moves scores: linear on counselling by 0.2 (1,000 chosen) and weight_grid on counselling by 0.2" in said
    page = render_page(study, measure_all(study))
    assert "completions_each" in page
    assert "Splits of one budget" in page
    write_report(tmp_path, study)
    assert (tmp_path / "report" / "figures" / "appendix.svg").stat().st_size > 5000
    assert (tmp_path / "report" / "tables" / "split.csv").exists()


def test_of_many_methods_a_sentence_names_the_least_and_the_most() -> None:
    flat = swept("flat")
    flat = replace(flat, points=tuple(replace(point, score=0.5, per_seed={10_000: 0.5}) for point in flat.points))
    said = split_sentence(of(*(swept(f"method_{number}") for number in range(8)), flat))
    assert "moves scores, from 0 to 0.2 over 9 sweeps: flat on counselling by 0 (1,000 chosen) and method_" in said
    assert said.count(" chosen)") == 2


def test_few_methods_share_a_chart_and_two_measures_do_not() -> None:
    names = [f"method_{number}" for number in range(9)]
    made = [builders.cell(name, 0) for name in names]
    study = replace(of(*map(swept, names)), cells=tuple(made))
    drawn = [chart.figure["data"] for chart in split_charts(View(study, []))]
    assert list(map(len, drawn)) == [2 * 8, 2]  # a line and a ring each
    shares, utilities = swept("linear"), replace(swept("weight_grid"), measure="utility")
    charts = split_charts(View(of(shares, utilities), []))
    heads = [chart.figure["layout"]["yaxis"]["title"]["text"].split(",")[0] for chart in charts]
    assert heads == ["captured share", "mean utility"]
    line, ring = charts[0].figure["data"]
    assert (line["x"], ring["x"]) == ([500, 1000, 2000], [1000])
    assert line["y"] == pytest.approx([0.4, 0.6, 0.5])
