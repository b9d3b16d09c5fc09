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


@pytest.fixture(scope="module")
def by_class() -> StudyRecords:
    """A study of a task where what users want depends on the prompt; each method has a class of its own."""
    study = builders.synthetic_study()
    classes = dict(zip(builders.METHODS, ("oracle", "told", "utility"), strict=True))
    cells = [
        replace(
            cell,
            feedback=classes.get(cell.method, "told"),
            evaluations=tuple(
                replace(each, prompt_preferences=np.tile(each.preference[::-1], (len(builders.PROMPTS), 1)))
                for each in cell.evaluations
            ),
        )
        for cell in study.cells
    ]
    tasks = {name: replace(info, contextual=True) for name, info in study.tasks.items()}
    return replace(study, cells=tuple(cells), tasks=tasks)


def test_methods_are_compared_with_those_alone_that_know_as_much(by_class: StudyRecords) -> None:
    parts = comparisons(by_class)
    assert [(part.feedback, [method.name for method in part.ranked]) for part in parts] == [
        ("told", ["weight_grid"]), ("utility", ["rewarded_soups"]), ("oracle", ["linear"]),
    ]  # fmt: skip
    assert parts[1].title.endswith(", feedback utility")
    rows = measure_all(by_class, ["performance"])
    for part in parts:
        first, second, *_ = findings(part, rows)
        assert first.question == "Who is compared?"
        assert f"(feedback: {part.feedback})" in first.answer
        assert f"{part.ranked[0].name} is the only method with results" in second.answer


def test_without_context_methods_of_all_classes_are_compared(by_class: StudyRecords) -> None:
    tasks = {name: replace(info, contextual=False) for name, info in by_class.tasks.items()}
    (part,) = comparisons(replace(by_class, tasks=tasks))
    assert part.feedback == ""
    assert {method.name for method in part.ranked} == set(builders.METHODS)
    assert "feedback" not in part.title
    assert findings(part, measure_all(by_class, ["performance"]))[0].question == "Who leads on average?"


def test_the_base_model_is_worth_what_users_want_of_each_prompt(by_class: StudyRecords) -> None:
    part, plain = comparisons(by_class)[0], comparisons(builders.synthetic_study())[0]
    # the users want the other way round: the base is worth to each what it was to who says so
    np.testing.assert_allclose(
        part.base_utilities, np.einsum("sk,mk->sm", plain.base_scores, part.task.preferences[:, ::-1]), atol=1e-9
    )


def test_rows_that_sections_share_stand_in_tables_once(by_class: StudyRecords) -> None:
    for table in (preferences_table(by_class), seeds_table(by_class)):
        assert len(table.rows) == len(set(table.rows))
