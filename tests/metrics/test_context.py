"""Metrics of tasks where what users want depends on the prompt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from builders import cell, evaluation, outcomes, study, task_info, truth
from paretune.core.protocols import MetricValue
from paretune.metrics.captured_share import CapturedShare
from paretune.metrics.kl_matched import KlMatched
from paretune.metrics.own_utility import OwnUtility
from paretune.metrics.pareto_optimality import ParetoOptimality
from paretune.metrics.performance import Performance
from paretune.metrics.true_front import TrueFront
from paretune.records.outcomes import OutcomeRecord, with_exact
from paretune.records.study import StudyRecords

TWO = ("reflection", "empathy")
POINTS = [[0.5, 0.5]]
BETA = 0.1
INFO = replace(task_info(preferences=POINTS, objectives=TWO, audit=(), listed=True), contextual=True)
# Two prompts. Of the first the user wants objective 1 alone, of the second objective 2 alone. The base has (.5, .5)
# everywhere; the best policy (.9, .1) and (.1, .9) with KL 1: it gains .4 - .1 on each prompt.
WANTED = np.asarray([[[1.0, 0.0], [0.0, 1.0]]])
BASE = [[0.5, 0.5], [0.5, 0.5]]
BEST = [[[0.9, 0.1], [0.1, 0.9]]]
TRUTH = replace(truth(BASE, BEST, [[1.0, 1.0]], POINTS, BETA), prompt_preferences=WANTED)


def scored(rewards: Any, kl: float) -> OutcomeRecord:
    scales = np.stack([np.asarray([BASE]), np.asarray(rewards)], axis=1)  # [M, S, P, K]
    return outcomes(scales, np.array([[[0.0, 0.0], [kl, kl]]]), POINTS)


def records(rewards: Any, kl: float = 1.0) -> StudyRecords:
    answered = with_exact(evaluation(np.asarray(rewards)[0], POINTS[0], TWO), np.asarray(rewards)[0], np.full(2, kl))
    own = cell(evaluations=[replace(answered, prompt_preferences=WANTED[0])], outcomes=scored(rewards, kl))
    base = with_exact(evaluation(BASE, None, TWO), np.asarray(BASE), np.zeros(2))
    return study([own], [INFO], references={("counselling", 0): base}, truths={("counselling", 0): TRUTH})


def rows(metric: Any, found: StudyRecords) -> dict[str, MetricValue]:
    return {row.label: row.value for row in metric.measure(found)}


@pytest.mark.parametrize(
    ("rewards", "kl", "share"),
    [
        (BEST, 1.0, 1.0),
        ([BASE], 0.0, 0.0),
        ([[[0.9, 0.1], [0.9, 0.1]]], 1.0, -1 / 3),  # gains .3 on the first, loses .5 on the second: -.1 of .3
        ([[[0.8, 0.8], [0.8, 0.8]]], 1.0, 2 / 3),  # .3 - .1 on both
    ],
)
def test_the_share_is_of_what_each_prompt_is_wanted_for(rewards: Any, kl: float, share: float) -> None:
    assert rows(CapturedShare(), records(rewards, kl))[""].value == pytest.approx(share)


def test_utility_is_what_each_prompt_is_wanted_for_and_gain_is_over_the_base_by_the_same_measure() -> None:
    found = rows(Performance(), records([[[0.9, 0.1], [0.3, 0.7]]]))
    assert found[""].value == pytest.approx(0.8)  # .9 and .7; the told preference would say .5
    assert found["gain over base"].value == pytest.approx(0.3)
    assert found["J: all"].value == pytest.approx(0.8 - BETA)


def test_utility_from_samples_pairs_each_prompt_with_what_is_wanted_of_it() -> None:
    """Ids without leading zeros: test-10 is sorted before test-2, which the records name first."""
    sampled = evaluation([[0.9, 0.1], [0.3, 0.7]], POINTS[0], TWO)
    ids = ("test-2", "test-10")
    own = replace(sampled, prompt_ids=ids, prompt_preferences=WANTED[0])
    found = rows(Performance(), study([cell(evaluations=[own])], [INFO]))
    assert found[""].value == own.utility(np.asarray(POINTS[0])) == pytest.approx(0.8)  # .9 and .7


def test_utility_at_equal_kl_counts_what_is_wanted_of_each_prompt() -> None:
    found = rows(KlMatched(levels=(0.5,)), records(BEST))
    assert found["utility at KL 0.5"].value == pytest.approx(0.7)  # half way from .5 to .9


@pytest.mark.parametrize("metric", [TrueFront(), OwnUtility(), ParetoOptimality()])
def test_there_is_no_front_and_the_reason_is_said(metric: Any) -> None:
    for label, value in rows(metric, records(BEST)).items():
        if not label.startswith("controllability: "):  # of mean scores, whoever wants them
            assert value.value is None
            assert "has no front: what users want depends on the prompt" in value.reason


def test_regret_and_the_worst_preference_count_what_is_wanted_of_each_prompt() -> None:
    found = rows(Performance(), records(BEST))
    assert found["regret to the optimum: all (lower is better)"].value == pytest.approx(0.0)
    assert found["worst preference"].value == pytest.approx(1.0)
    assert "has no front" in found["chebyshev: all"].reason


def test_the_best_known_policy_is_valued_by_what_is_wanted_of_each_prompt() -> None:
    info = replace(INFO, listed=False, judged_on="utility")
    answers = [
        replace(evaluation([[0.9, 0.1], [0.3, 0.7]], point, TWO), prompt_preferences=np.asarray(wanted))
        for point, wanted in zip(POINTS, WANTED, strict=True)
    ]
    better = replace(answers[0], rewards=np.full((2, 2), 1.0))
    found = study([cell(evaluations=answers), cell("weight_grid", evaluations=[better, *answers[1:]])], [info])
    lost = [row.value for row in Performance().measure(found) if row.label.startswith("regret to the best known: all")]
    own = answers[0].utility(np.asarray(POINTS[0]))
    assert [each.value for each in lost] == [pytest.approx((1 - own) / len(POINTS)), pytest.approx(0.0)]


def test_samples_without_a_reward_that_is_wanted_are_left_out() -> None:
    # two samples of each prompt: 1 and missing on the first, 0 and .5 on the second; what nobody wants may be missing
    sampled = evaluation([[1.0, np.nan], [np.nan, 1.0], [np.nan, 0.0], [0.0, 0.5]], POINTS[0], TWO, samples=2)
    assert sampled.utility_by(WANTED[0]) == pytest.approx((1.0 + 0.0 + 0.5) / 3)
    assert np.isnan(replace(sampled, rewards=np.full((4, 2), np.nan)).utility_by(WANTED[0]))
