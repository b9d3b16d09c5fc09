from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

import builders
from paretune.metrics import measure_all
from paretune.records.study import StudyRecords
from paretune.report.comparison import comparisons
from paretune.report.sections.overall import (
    Overall,
    improvement_table,
    mean_table,
    middle_mean,
    overall_sentence,
    overalls,
    profiles,
)

NAMES = ("kind", "short")


def study(utilities: Mapping[str, Sequence[Sequence[float]]]) -> StudyRecords:
    """Method -> task -> utility of every seed."""
    infos = [
        builders.task_info(f"task {index}", [[1, 0], [0, 1]], objectives=NAMES, audit=(), test_prompts=1, samples=1)
        for index in range(max(map(len, utilities.values())))
    ]
    cells = [
        builders.cell(
            method, seed, [builders.evaluation([[value] * 2], each, NAMES) for each in info.preferences], task=info.name
        )
        for method, tasks in utilities.items()
        for info, values in zip(infos, tasks, strict=False)
        for seed, value in enumerate(values)
    ]
    return builders.study(cells, infos)


def collected(records: StudyRecords) -> Overall:
    (found,) = overalls(comparisons(records), measure_all(records, ["performance", "captured_share"]))
    return found


def test_runs_are_collected_by_task_and_seed() -> None:
    found = collected(study({"linear": [[0.5, 0.6], [0.1, 0.2]], "weight_grid": [[0.7, 0.8], [0.3, 0.4]]}))
    np.testing.assert_allclose(found.runs["linear"], [[0.5, 0.6], [0.1, 0.2]])
    assert found.score == "achieved utility"
    assert found.title == "6,000 completions, 2 tasks, achieved utility"
    assert overall_sentence(found).endswith("2 tasks and 2 seeds that all methods finished.")


def test_a_seed_that_one_method_lost_counts_for_none() -> None:
    found = collected(study({"linear": [[0.5, 0.6], [0.1, 0.2]], "weight_grid": [[0.7, 0.8], [0.3]]}))
    assert found.seeds == (0,)
    np.testing.assert_allclose(found.runs["linear"], [[0.5], [0.1]])


def test_a_method_without_a_task_is_left_out_and_named() -> None:
    found = collected(study({"linear": [[0.5, 0.6], [0.1, 0.2]], "weight_grid": [[0.7, 0.8]]}))
    assert list(found.runs) == ["linear"]
    assert overall_sentence(found).endswith(" Left out: weight_grid (no achieved utility on task 1).")
    assert improvement_table(found) is None


def test_a_ceiling_without_a_seed_is_left_out_for_that_seed() -> None:
    tasks = [[0.5, 0.6], [0.1, 0.2]]
    found = collected(study({"linear": tasks, "weight_grid": tasks, builders.CEILING: [[0.9], [0.8, 0.7]]}))
    assert (list(found.runs), found.seeds, found.ceilings) == (["linear", "weight_grid"], (0, 1), ())
    assert overall_sentence(found).endswith(" Left out: exact_gradient (no achieved utility of seed 1 on some task).")


def test_methods_without_a_common_seed_have_no_runs_and_the_reason() -> None:
    # linear has both seeds on both tasks, weight_grid seed 0 on one and seed 1 on the other
    records = study({"linear": [[0.5, 0.6], [0.1, 0.2]], "weight_grid": [[0.7, 0.8], [0.3, 0.4]]})
    lost = {("task 0", 0), ("task 1", 1)}
    kept = [each for each in records.cells if each.method == "linear" or (each.task, each.seed) not in lost]
    found = collected(dataclasses.replace(records, cells=tuple(kept)))
    assert (found.runs, found.seeds, found.left_out) == ({}, (), {})
    assert overall_sentence(found) == (
        "There are no runs to show: no seed has the achieved utility of every method on every task "
        "(linear has seeds 0 and 1, weight_grid has none)."
    )
    assert mean_table(found) is None
    assert improvement_table(found) is None
    assert str(profiles(found)).endswith("there are 0.")


def test_no_method_with_every_task_is_said() -> None:
    records = study({"linear": [[0.5], [0.1]], "weight_grid": [[0.7], [0.3]]})
    kept = [each for each in records.cells if each.task == ("task 0" if each.method == "linear" else "task 1")]
    found = collected(dataclasses.replace(records, cells=tuple(kept)))
    assert overall_sentence(found) == (
        "There are no runs to show: no method has a score on every task. "
        "Left out: linear (no achieved utility on task 1); weight_grid (no achieved utility on task 0)."
    )


def test_captured_share_is_the_score_although_one_method_has_none() -> None:
    info = builders.task_info(family_settings={"rho": 0.0}, judged_on="J")
    records = builders.synthetic_study(task=info, exact=True)
    cells = [dataclasses.replace(each, outcomes=None) if each.method == "linear" else each for each in records.cells]
    found = collected(dataclasses.replace(records, cells=tuple(cells)))
    assert found.score == "captured share"
    assert found.left_out == {"linear": "no captured share on counselling"}
    assert list(found.runs) == ["weight_grid", "rewarded_soups"]


def test_a_task_that_has_not_run_at_all_takes_no_part() -> None:
    whole = study({"linear": [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]], "weight_grid": [[0.2, 0.3], [0.4, 0.5], [0.6, 0.7]]})
    *_, last = whole.tasks
    idle = {"state": "pending", "evaluations": ()}
    cells = tuple(dataclasses.replace(each, **idle) if each.task == last else each for each in whole.cells)
    found = collected(dataclasses.replace(whole, cells=cells))
    assert found.left_out == {}
    assert found.runs["linear"] == pytest.approx(np.array([[0.1, 0.2], [0.3, 0.4]]))


def test_a_task_of_which_every_cell_failed_is_missed() -> None:
    whole = study({"linear": [[0.1, 0.2], [0.3, 0.4]], "weight_grid": [[0.2, 0.3], [0.4, 0.5]]})
    lost = {"state": "failed", "evaluations": ()}
    cells = tuple(dataclasses.replace(each, **lost) if each.task == "task 1" else each for each in whole.cells)
    found = collected(dataclasses.replace(whole, cells=cells))
    assert found.left_out == dict.fromkeys(("linear", "weight_grid"), "no achieved utility on task 1")


def test_one_ordinary_task_has_nothing_to_add_up() -> None:
    records = builders.synthetic_study()
    assert overalls(comparisons(records), measure_all(records)) == []


def test_instances_of_one_controlled_task_are_runs_and_their_score_is_the_captured_share() -> None:
    info = builders.task_info(family_settings={"rho": 0.0}, judged_on="J")
    found = collected(builders.synthetic_study(methods=(builders.CEILING, *builders.METHODS), task=info, exact=True))
    assert found.score == "captured share"
    assert found.ceilings == (builders.CEILING,)
    assert list(found.ranked) == list(builders.METHODS)
    table = mean_table(found)
    assert table is not None
    assert table.rows[-1][0] == builders.CEILING
    assert "has no interval" in str(table.rows[0][-1])
    improvement = improvement_table(found)
    assert improvement is not None
    assert builders.CEILING not in " ".join(improvement.columns)


def test_interquartile_mean_is_of_each_seeds_tasks_with_an_interval_over_seeds() -> None:
    # of four tasks the middle two count: .4 and .6 for seed 0, .5 and .7 for seed 1: .5 and .6, standard error .05
    runs = np.array([[0.0, 0.1], [0.4, 0.5], [0.6, 0.7], [9.0, 9.0]])
    value = middle_mean(runs, (0, 1))
    assert value.value == pytest.approx(0.55)
    assert value.high == pytest.approx(0.55 + 12.7062 * 0.05, abs=1e-4)


def test_chances_of_improvement_compare_on_the_same_task() -> None:
    # within each task every run of linear wins, although its runs on task 1 lie below the other's on task 0
    table = improvement_table(
        collected(study({"linear": [[0.9, 0.8], [0.4, 0.3]], "weight_grid": [[0.7, 0.6], [0.2, 0.1]]}))
    )
    assert table is not None
    assert table.columns == ("method", "against linear", "against weight_grid")
    assert str(table.rows[0][2]).startswith("1.00 [")
    assert str(table.rows[1][1]).startswith("0.000 [")
    assert table.rows[0][1] == "–"


def test_profiles_need_twenty_runs_of_every_method() -> None:
    few = collected(study({"linear": [[0.5] * 9, [0.1] * 9], "weight_grid": [[0.7] * 9, [0.3] * 9]}))
    assert profiles(few) == "Performance profiles are left out: they need 20 runs of each method, and there are 18."
    many = collected(study({"linear": [[0.5] * 10, [0.1] * 10], "weight_grid": [[0.7] * 10, [0.3] * 10]}))
    found = profiles(many)
    assert not isinstance(found, str)
    assert found["linear"].share[0] == 1.0
    assert found["linear"].share[-1] == 0.0
    assert (found["weight_grid"].share >= found["linear"].share).all()
