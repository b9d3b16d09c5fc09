from dataclasses import replace

import numpy as np
import pytest

from builders import cell, evaluation, stage, task_info
from paretune.metrics.covering import cost_to_cover, marginal_cost

TWO = ("reflection", "empathy")
GRID = [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]
NEW = [0.2, 0.8]
INFO = task_info(preferences=[*GRID, NEW], unseen=[False, False, False, True], objectives=TWO, audit=())


def completions(each):
    return each.counts["completions"]


def seconds(each):
    return each.seconds


def answered(*words, info=INFO, policies=2):
    """Two policies (100 and 300 completions, 9 and 2 seconds) and what chooses among them (50, 1 second)."""
    weights = np.eye(policies)[0] if policies else np.zeros(0)
    records = [
        evaluation([[0.5, 0.5]], point, TWO, answer=word, expert_weights=weights)
        for point, word in zip(info.preferences, words, strict=True)
    ]
    stages = [
        stage("a", 100, key="a", seconds=9.0),
        stage("b", 300, key="b", seconds=2.0),
        stage("m", 50, ["a", "b"], "measurement", key="m", seconds=1.0),
    ]
    return cell(evaluations=records, stages=stages)


def test_a_preference_that_a_neighbours_policy_answers_costs_a_policy_more():
    """All of 450, and for (.5, .5) the mean policy, (100 + 300) / 2 = 200; what chooses is paid once."""
    found = answered("exact", "exact", "nearest", "nearest")
    assert cost_to_cover(found, INFO, completions) == 650
    assert cost_to_cover(found, INFO, seconds) == 12.0 + 5.5
    assert marginal_cost(found, INFO, completions) == 200
    assert marginal_cost(found, INFO, seconds) == 5.5


@pytest.mark.parametrize("word", ["estimated", "nearest"])
def test_a_grid_with_a_policy_for_each_costs_what_was_spent_and_one_more_a_policy(word):
    found = answered("exact", "exact", "exact", word)
    assert cost_to_cover(found, INFO, completions) == 450
    assert marginal_cost(found, INFO, completions) == 200


@pytest.mark.parametrize("word", ["combined", "selected", "a word of its own"])
def test_what_answers_without_training_covers_the_grid_with_what_it_spent_and_one_more_is_free(word):
    found = answered(word, word, word, word)
    assert cost_to_cover(found, INFO, completions) == 450
    assert marginal_cost(found, INFO, completions) == 0.0


def test_an_untrained_model_costs_nothing_and_has_no_marginal_cost():
    found = replace(answered(*["untrained"] * 4, policies=0), stages=())
    assert cost_to_cover(found, INFO, completions) == 0.0
    assert marginal_cost(found, INFO, completions) == "trains nothing"


def test_without_unseen_preferences_only_a_neighbour_s_answer_tells_what_one_more_costs():
    info = task_info(preferences=GRID, unseen=[False] * 3, objectives=TWO, audit=())
    silent = marginal_cost(answered("exact", "exact", "exact", info=info), info, completions)
    assert silent == "has no answer to a preference that it was not given: the study has no unseen ones"
    assert marginal_cost(answered("exact", "exact", "nearest", info=info), info, completions) == 200
    assert marginal_cost(answered("combined", "combined", "combined", info=info), info, completions) == 0.0


def test_a_missing_answer_or_policy_is_a_reason_and_no_number():
    found = answered("exact", "exact", "nearest", "nearest")
    lost = replace(found, evaluations=found.evaluations[:2])
    assert cost_to_cover(lost, INFO, completions) == "has no evaluation for reflection .50, empathy .50"
    assert "has no evaluation for reflection .20" in marginal_cost(lost, INFO, completions)
    bare = replace(found, stages=found.stages[2:])
    why = "has no record of a policy that was trained for a preference"
    assert cost_to_cover(bare, INFO, completions) == marginal_cost(bare, INFO, completions) == why
