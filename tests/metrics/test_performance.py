import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import cell, evaluation, study, synthetic_study, task_info
from paretune.metrics.own_utility import OwnUtility
from paretune.metrics.performance import Performance

TWO = ("reflection", "empathy")


def task(preferences=((1, 0), (0, 1), (0.5, 0.5)), unseen=(False, False, True)):
    return task_info(preferences=preferences, unseen=unseen, objectives=TWO, audit=())


def answered(scores, preference, kl=0.0):
    """Two completions whose rewards average to the scores."""
    mean = np.array(scores)
    return evaluation([mean - 0.05, mean + 0.05], preference, TWO, kl=kl)


def seed_cell(seed=0, lift=0.0):
    return cell(
        seed=seed,
        evaluations=[
            answered([0.6 + lift, 0.1], [1, 0], kl=1.0),
            answered([0.2, 0.8 + lift], [0, 1], kl=2.0),
            answered([0.4 + lift, 0.5 + lift], [0.5, 0.5], kl=0.6),
        ],
    )


def measured(*cells, info=None, references=None):
    rows = Performance().measure(study(cells, [info or task()], references))
    return {row.label: row.value for row in rows}


def test_utility_weighs_the_scores_of_the_assigned_policy():
    rows = measured(seed_cell())
    # w . score: .6, .8 and .5 (.4) + .5 (.5) = .45
    assert rows["preference: reflection"].value == pytest.approx(0.6)
    assert rows["preference: empathy"].value == pytest.approx(0.8)
    assert rows["preference: reflection .50, empathy .50"].value == pytest.approx(0.45)
    assert rows["seen"].value == pytest.approx(0.7)
    assert rows["unseen"].value == pytest.approx(0.45)
    assert rows[""].value == pytest.approx((0.6 + 0.8 + 0.45) / 3)


def test_the_best_policy_in_hindsight_does_not_count():
    # the policy assigned to empathy scores .1 on it although another member scores .9
    wrong = cell(evaluations=[answered([0.2, 0.9], [1, 0]), answered([0.9, 0.1], [0, 1])])
    rows = measured(wrong, info=task([[1, 0], [0, 1]], [False, False]))
    assert rows[""].value == pytest.approx((0.2 + 0.1) / 2)


def test_kl_is_reported_beside_and_not_inside():
    rows = measured(seed_cell())
    assert rows["kl: reflection"].value == pytest.approx(1.0)
    assert rows["kl: all"].value == pytest.approx(1.2)  # (1 + 2 + .6) / 3


def test_gain_is_paired_with_the_base_model_of_the_same_seed():
    # Utilities: .6167 and, with a lift of .1, .6167 + .1. Bases: .3 and .4 for every preference, so both gain .3167.
    references = {("counselling", seed): evaluation([[0.3 + 0.1 * seed] * 2], None, TWO) for seed in (0, 1)}
    rows = measured(seed_cell(0), seed_cell(1, lift=0.1), references=references)
    gain = rows["gain over base"]
    assert gain.value == pytest.approx(0.95 / 3)
    assert gain.high - gain.low == pytest.approx(0, abs=1e-12)
    assert rows[""].high - rows[""].low > 0.9  # while utilities themselves differ by seed


def test_intervals_end_where_rewards_and_kl_do():
    """Two seeds that differ by .1 have an interval of 1.3; rewards are from 0 to 1, and J may be as low as you like."""
    references = {("counselling", seed): evaluation([[0.3] * 2], None, TWO) for seed in (0, 1)}
    rows = measured(seed_cell(0), seed_cell(1, lift=0.1), references=references)
    assert (rows[""].low > 0, rows[""].high) == (True, 1.0)
    assert (rows["gain over base"].low, rows["gain over base"].high) == (
        pytest.approx(0.95 / 3 + 0.05 - 0.6353, abs=1e-3),
        1.0,
    )
    assert rows["J: all"].high == 1.0
    apart = replace(
        seed_cell(1), evaluations=[replace(each, log_probs=each.log_probs + 3) for each in seed_cell(1).evaluations]
    )
    rows = measured(seed_cell(0), apart, references=references)
    assert rows["kl: all"].low == 0.0
    assert rows["J: all"].low < 0
    wide = replace(task(), objectives=tuple(replace(each, range=(-10.0, np.inf)) for each in task().objectives))
    assert measured(seed_cell(0), seed_cell(1, lift=0.1), info=wide)[""].high > 1


def test_gain_without_a_base_model_is_no_value():
    gain = measured(seed_cell())["gain over base"]
    assert gain.value is None
    assert gain.reason == "0 of 1 seeds: seed 0 has no evaluation of the base model"


def test_utility_needs_the_objectives_a_preference_weighs_and_a_mean_those_of_all_its_preferences():
    blind = cell(evaluations=[evaluation([[0.6, np.nan]], point, TWO) for point in ([1, 0], [0, 1])])
    rows = measured(blind, info=task([[1, 0], [0, 1]], [False, False]))
    assert (rows["preference: reflection"].value, rows["preference: reflection"].reason) == (
        0.6,
        "one seed: no interval",
    )
    assert rows["preference: empathy"].value is None
    assert rows["gain over base"].reason.startswith("0 of 1 seeds: seed 0 has no evaluation of the base model")
    for label in ("", "seen"):
        assert rows[label].value is None
        assert rows[label].reason == "0 of 1 seeds: seed 0 has no empathy reward for empathy; " + (
            "completions left out of a mean: 1 of 1 without empathy reward"
        )
    assert rows["kl: all"].value == 0.0  # needs no reward


def test_a_preference_needs_no_evaluation_of_another():
    rows = measured(cell(evaluations=[answered([0.6, 0.1], [1, 0], kl=1.0)]))
    assert rows["preference: reflection"].value == pytest.approx(0.6)
    assert rows["kl: reflection"].value == pytest.approx(1.0)
    assert rows["preference: empathy"].value is None
    assert rows[""].reason == "0 of 1 seeds: seed 0 has no evaluation for empathy"


def test_gain_needs_the_base_models_rewards_of_every_objective_that_is_weighed():
    references = {("counselling", 0): evaluation([[0.3, np.nan]], None, TWO)}
    gain = measured(seed_cell(), references=references)["gain over base"]
    assert gain.value is None
    assert gain.reason == "0 of 1 seeds: seed 0 has an objective without any reward of the base model"
    corner = task([[1, 0]], [False])
    assert measured(seed_cell(), info=corner, references=references)["gain over base"].value == pytest.approx(0.3)


def test_missing_rewards_are_left_out_of_the_mean_and_counted():
    # empathy averages .8 over the one completion that has it, not .4 over two
    half = cell(evaluations=[evaluation([[0.6, 0.8], [0.6, np.nan]], [0, 1], TWO)])
    value = measured(half, info=task([[0, 1]], [False]))[""]
    assert value.value == pytest.approx(0.8)
    assert "1 of 2 without empathy reward" in value.reason


def test_a_prompt_with_a_missing_reward_still_counts_with_the_completions_it_has():
    rewards = [[0.2, 0.1], [0.4, 0.1], [0.6, 0.1], [np.nan, 0.1]]  # two prompts, two completions each
    holed = cell(evaluations=[evaluation(rewards, [1, 0], TWO, samples=2)])
    value = measured(holed, info=task([[1, 0]], [False]))[""]
    assert value.value == pytest.approx(0.4)  # over three completions; the first prompt alone would give .3


def test_failed_seed_is_named():
    failed = cell(seed=1, state="failed", reason="crash")
    value = measured(seed_cell(0), failed, seed_cell(2, lift=0.3))[""]
    assert value.per_seed.keys() == {0, 2}
    assert value.reason == "2 of 3 seeds: seed 1 failed (crash)"


def test_study_without_unseen_preferences_has_no_row_for_them():
    rows = measured(cell(evaluations=[answered([0.5, 0.5], [1, 0])]), info=task([[1, 0]], [False]))
    assert "unseen" not in rows


@given(st.permutations(range(3)), st.permutations(range(3)))
def test_order_of_evaluations_and_preferences_does_not_matter(first, second):
    info, whole = task(), seed_cell()
    shuffled = cell(evaluations=[whole.evaluations[index] for index in first])
    other = task(info.preferences[list(second)], info.unseen[list(second)])
    assert measured(shuffled, info=other)[""].value == pytest.approx(measured(whole)[""].value)


def test_from_twenty_seeds_prompts_are_drawn_within_them_and_the_rule_is_named():
    few, many = (
        measured(*(seed_cell(seed, 0.01 * seed) for seed in range(19))),
        measured(*(seed_cell(seed, 0.01 * seed) for seed in range(20))),
    )
    assert "bootstrap" not in few[""].reason
    assert many[""].reason == "interval: nested bootstrap over 20 seeds and 2 prompts"
    # lifts of 0 to .19 on two of three preferences' utilities, and on both objectives of the third: mean .095
    assert many[""].value == pytest.approx((0.6 + 0.8 + 0.45) / 3 + 0.095)
    assert many[""].low < many[""].value < many[""].high


def test_chebyshev_counts_the_worst_weighted_shortfall_of_the_range():
    rows = measured(seed_cell())
    # reflection: 1 - .6 alone; empathy: 1 - .8; both: the larger of .5 x .6 and .5 x .5
    assert rows["chebyshev: seen"].value == pytest.approx((-0.4 - 0.2) / 2)
    assert rows["chebyshev: unseen"].value == pytest.approx(-0.3)
    assert rows["chebyshev: all"].value == pytest.approx((-0.4 - 0.2 - 0.3) / 3)


def test_chebyshev_needs_ranges_with_ends_and_the_objectives_a_preference_weighs():
    info = task([[1, 0], [0, 1]], [False, False])
    unbounded = replace(info.objectives[0], range=(-math.inf, 1.0))
    rows = measured(seed_cell(), info=replace(info, objectives=(unbounded, info.objectives[1])))
    assert rows["chebyshev: all"].value is None
    assert "seed 0 has an objective without a range with two ends (reflection)" in rows["chebyshev: all"].reason
    blind = cell(evaluations=[evaluation([[0.6, np.nan]], point, TWO) for point in ([1, 0], [0, 1])])
    assert "seed 0 has no empathy reward for empathy" in measured(blind, info=info)["chebyshev: all"].reason
    corner = measured(blind, info=task([[1, 0]], [False]))
    assert corner["chebyshev: all"].value == pytest.approx(-0.4)
    assert "chebyshev: unseen" not in corner


def test_chebyshev_is_what_own_utility_says_where_the_optimum_is_not_known():
    records = synthetic_study()
    kinds = {(row.method, row.label): row.value for row in OwnUtility().measure(records)}
    for row in Performance().measure(records):
        if row.label == "chebyshev: all":
            assert row.value.value == kinds[row.method, "mean utility, chebyshev"].value
