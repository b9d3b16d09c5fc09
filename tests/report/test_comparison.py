from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import builders
from paretune.core.protocols import MetricRow, MetricValue
from paretune.metrics import measure_all
from paretune.records.evaluation import EvaluationRecord
from paretune.records.study import StudyRecords
from paretune.report.comparison import comparisons
from paretune.report.findings import findings
from paretune.report.heat_map import BASE, heat_map
from paretune.report.tables import preferences_table, seeds_table


def without_empathy(record: EvaluationRecord) -> EvaluationRecord:
    """The record as it would be, had the empathy reward failed on every completion."""
    rewards = record.rewards.copy()
    rewards[:, 1] = np.nan
    return replace(record, rewards=rewards)


@pytest.fixture(scope="module")
def blind() -> StudyRecords:
    """A study in which one of three methods has no empathy reward at all."""
    study = builders.synthetic_study()
    cells = [
        replace(cell, evaluations=tuple(map(without_empathy, cell.evaluations))) if cell.method == "linear" else cell
        for cell in study.cells
    ]
    return replace(study, cells=tuple(cells))


def close(value: MetricValue, other: float | None) -> bool:
    return value.value is None if other is None else value.value == pytest.approx(other, abs=1e-12)  # order of sums


def performance(rows: list[MetricRow], label: str) -> dict[str, MetricValue]:
    return {row.method: row.value for row in rows if row.metric == "performance" and row.label == label}


def test_metrics_and_report_agree_on_every_utility_where_an_objective_is_missing(blind: StudyRecords) -> None:
    (part,) = comparisons(blind)
    rows = measure_all(blind)
    table = preferences_table(blind)
    told = {(row[2], row[3]): row[6] for row in table.rows}

    for label in part.labels:
        for method, value in performance(rows, f"preference: {label}").items():
            assert close(value, told[method, label]), (method, label)
    for method, average in zip(part.methods, heat_map(part, BASE).averages, strict=True):
        assert close(performance(rows, "gain over base")[method.name], average.value)
    overall = {row[2]: row[7] for row in seeds_table(blind).rows if row[3] == 0}
    for name, value in performance(rows, "").items():
        assert value.per_seed.get(0) == (None if overall[name] is None else pytest.approx(overall[name], abs=1e-12))


def test_a_missing_objective_takes_the_utility_of_those_preferences_that_weigh_it(blind: StudyRecords) -> None:
    (part,) = comparisons(blind)
    weighed = part.task.preferences[:, 1] > 0
    assert weighed.any()
    assert not weighed.all()
    np.testing.assert_array_equal(np.isnan(part.method("linear").utilities), np.tile(weighed, (3, 1)))
    assert performance(measure_all(blind), "")["linear"].value is None
    assert performance(measure_all(blind), "")["weight_grid"].value is not None


def test_methods_without_a_utility_for_every_preference_are_not_said_to_be_unfinished(blind: StudyRecords) -> None:
    alone = replace(blind, cells=tuple(cell for cell in blind.cells if cell.method == "linear"))
    (part,) = comparisons(alone)
    overall = findings(part, measure_all(alone))[0].answer
    assert overall == "No method has a utility for every preference in any seed, so there is nothing to compare."
