import math
from dataclasses import replace

import numpy as np
import pytest

from builders import cell, evaluation, study, task_info
from paretune.metrics.seeds import (
    answers,
    groups,
    left_out,
    measured_scores,
    measured_utilities,
    over_seeds,
    preference_labels,
    span,
)

TASK = task_info(preferences=[[1, 0, 0], [0, 0.5, 0.5]])


def test_value_is_the_mean_over_seeds_with_its_interval():
    value = over_seeds([cell(seed=0), cell(seed=1), cell(seed=2)], lambda each: 1.0 + each.seed)
    # mean 2, sd 1, t for 2 degrees of freedom 4.302653
    assert value.value == 2.0
    assert value.low == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-6)
    assert value.per_seed == {0: 1.0, 1: 2.0, 2: 3.0}
    assert value.reason == ""


def test_an_interval_ends_where_nothing_more_is_possible():
    cells = [cell(seed=0), cell(seed=1)]
    value = over_seeds(cells, lambda each: 0.2 + 0.5 * each.seed, within=(0, 1))  # t of 2 seeds: -2.7 to 3.6
    assert (value.low, value.high) == (0.0, 1.0)
    beyond = over_seeds(cells, lambda each: -1e-17, within=(0, 1))  # rounding: the value stays inside its interval
    assert (beyond.low, beyond.value, beyond.high) == (-1e-17, -1e-17, -1e-17)
    many = [cell(seed=seed) for seed in range(20)]
    drawn = over_seeds(many, lambda each: np.array([0.0, float(each.seed == 0)]), within=(0.01, 0.03))
    assert (drawn.low, drawn.high) == (0.01, 0.03)  # the bootstrap's too


def test_counts_are_written_once_where_they_agree():
    assert (span([5]), span([3, 4, 5])) == ("5", "3 to 5")


def test_lost_seeds_are_left_out_and_named():
    cells = [
        cell(seed=0),
        cell(seed=1, state="failed", reason="crash"),
        cell(seed=2),
        cell(seed=3, state="pending"),
        cell(seed=4),
    ]
    value = over_seeds(cells, lambda each: "has no empathy reward" if each.seed == 4 else 0.5 * each.seed, "a note")
    assert value.value == 0.5
    assert value.low is not None
    assert value.per_seed == {0: 0.0, 2: 1.0}
    assert value.reason == (
        "2 of 5 seeds: seed 1 failed (crash), seed 3 has not finished, seed 4 has no empathy reward; a note"
    )


def test_one_seed_has_a_value_without_an_interval():
    value = over_seeds([cell(seed=0)], lambda _: 0.25)
    assert (value.value, value.low, value.high, value.reason) == (0.25, None, None, "one seed: no interval")


def test_no_seed_is_no_value_and_never_zero():
    value = over_seeds([cell(seed=0, state="failed", reason="crash")], lambda _: 0.25)
    assert value.value is None
    assert value.per_seed == {}
    assert value.reason == "0 of 1 seeds: seed 0 failed (crash)"


def test_value_that_is_not_finite_is_no_value():
    value = over_seeds([cell(seed=0), cell(seed=1)], lambda each: 0.5 if each.seed else math.inf)
    assert value.per_seed == {1: 0.5}
    assert "seed 0: its value is not finite" in value.reason


def test_groups_keep_methods_budgets_and_tasks_apart():
    cells = [cell("linear", 0), cell("mod", 0), cell("linear", 1), cell("linear", 0, budget=9000)]
    found = [(group.method, group.budget_completions, len(group.cells)) for group in groups(study(cells))]
    assert found == [("linear", 6000, 2), ("mod", 6000, 1), ("linear", 9000, 1)]


def test_answers_come_in_the_order_of_the_tasks_preferences():
    records = [evaluation([[0.1, 0.2, 0.3]], preference) for preference in ([0, 0.5, 0.5], [1, 0, 0])]
    found = answers(cell(evaluations=records), TASK)
    assert [record.preference.tolist() for record in found] == [[1, 0, 0], [0, 0.5, 0.5]]


def test_missing_answer_and_missing_reward_are_reasons():
    corner = evaluation([[0.1, 0.2, 0.3]], [1, 0, 0])
    blind = evaluation([[0.1, np.nan, 0.3], [0.1, np.nan, 0.3]], [0, 0.5, 0.5])
    development = evaluation([[0.1, 0.2, 0.3]], [0, 0.5, 0.5], split="development")
    assert answers(cell(evaluations=[corner]), TASK) == "has no evaluation for empathy .50, brevity .50"
    assert answers(cell(evaluations=[corner, development]), TASK) == "has no evaluation for empathy .50, brevity .50"
    assert measured_scores(cell(evaluations=[corner, blind]), TASK) == (
        "has no empathy reward for empathy .50, brevity .50"
    )


def test_utilities_are_those_of_the_chosen_preferences_in_the_tasks_order():
    corner = evaluation([[0.1, np.nan, 0.3]], [1, 0, 0])
    middle = evaluation([[np.nan, 0.2, 0.4]], [0, 0.5, 0.5])
    both = np.array([True, True])
    assert measured_utilities(cell(evaluations=[middle, corner]), TASK, both).tolist() == pytest.approx([0.1, 0.3])
    assert measured_utilities(cell(evaluations=[middle]), TASK, ~both).tolist() == []
    assert measured_utilities(cell(evaluations=[middle]), TASK, both) == "has no evaluation for reflection"


def test_completions_without_a_reward_are_counted_where_they_belong():
    corner = evaluation([[0.1, 0.2, 0.3], [0.1, 0.2, np.nan]], [1, 0, 0])
    middle = evaluation([[0.1, np.nan, np.nan], [0.1, 0.2, 0.3]], [0, 0.5, 0.5])
    cells = [cell(evaluations=[corner, middle]), cell(seed=1, state="failed", evaluations=[corner])]
    assert left_out(cells, TASK, np.array([True, True])) == (
        "completions left out of a mean: 1 of 2 without empathy reward, 1 of 2 without brevity reward"
    )
    assert left_out(cells, TASK, np.array([True, False])) == ""  # nobody wants what misses


def test_an_objective_counts_where_it_is_wanted_of_a_prompt_whatever_the_preference_says():
    told = [1, 0, 0]
    wanted = np.array([[0, 1.0, 0], [0, 0.5, 0.5]])  # nothing of the first objective, which may be missing throughout
    known = replace(evaluation([[np.nan, 0.2, np.nan], [np.nan, 0.4, 0.8]], told), prompt_preferences=wanted)
    task, one = task_info(preferences=[told]), np.array([True])
    # .2 on the first prompt, (.4 + .8) / 2 on the second
    assert measured_utilities(cell(evaluations=[known]), task, one).tolist() == pytest.approx([0.4])
    assert left_out([cell(evaluations=[known])], task, one) == ""
    blind = replace(evaluation([[0.1, 0.2, np.nan], [0.1, 0.4, np.nan]], told), prompt_preferences=wanted)
    assert measured_utilities(cell(evaluations=[blind]), task, one) == "has no brevity reward for reflection"
    assert left_out([cell(evaluations=[blind])], task, one) == (
        "completions left out of a mean: 1 of 1 without brevity reward"
    )


def test_preferences_that_look_alike_have_different_labels():
    labels = preference_labels(task_info(preferences=[[0.333, 0.667, 0], [0.334, 0.666, 0], [0, 0, 1]]))
    assert labels == ["reflection .333, empathy .667", "reflection .334, empathy .666", "brevity"]
    twice = [[1 / 3, 2 / 3, 0], [1 / 3 + 1e-9, 2 / 3 - 1e-9, 0], [0.3, 0.7, 0]]
    assert preference_labels(task_info(preferences=twice)) == [
        "reflection .333333, empathy .666667 (#0)",
        "reflection .333333, empathy .666667 (#1)",
        "reflection .30, empathy .70",
    ]
