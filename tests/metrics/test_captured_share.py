from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from builders import cell, outcomes, study, synthetic_study, task_info, truth
from paretune.core.protocols import MetricValue
from paretune.metrics.captured_share import CapturedShare
from paretune.metrics.exact import LOST
from paretune.records.outcomes import OutcomeRecord

TWO = ("reflection", "empathy")
POINTS = [[1.0, 0.0], [0.0, 1.0]]
BETA = 0.1
INFO = task_info(preferences=POINTS, unseen=[False, True], objectives=TWO, audit=(), listed=True)
# One prompt; base J (.5, .5). Optima: E r (1, .2) and (.3, .8), KL 1: J (.9, .1) and (.2, .7), so gains .4 and .2.
TRUTH = truth([[0.5, 0.5]], [[[1.0, 0.2]], [[0.3, 0.8]]], [[1.0], [1.0]], POINTS, BETA)


def scored(first: float, second: float, kl: float = 1.0, exact: bool = True, reason: str = "") -> OutcomeRecord:
    """Policies with the given reward on the objective their preference asks for, and 0 on the other."""
    own = np.array([[first, 0.0], [0.0, second]])
    rewards = np.stack([np.full_like(own, 0.5), own], axis=1)[:, :, None]  # [M, S, P, K]
    return outcomes(rewards, np.array([[[0.0], [kl]]] * 2), POINTS, exact=exact, reason=reason)


def measured(*records: OutcomeRecord | None, known: bool = True, listed: bool = True) -> dict[str, MetricValue]:
    cells = [cell(seed=seed, outcomes=record) for seed, record in enumerate(records)]
    truths = {("counselling", seed): TRUTH for seed in range(len(records))} if known else {}
    return {
        row.label: row.value
        for row in CapturedShare().measure(study(cells, [replace(INFO, listed=listed)], truths=truths))
    }


def test_share_is_a_ratio_of_sums_and_not_a_mean_of_shares() -> None:
    # rewards .9 and .6 at a price of .1: J .8 and .5, gains .3 and 0: (.3 + 0) / (.4 + .2), not the mean of .75 and 0
    rows = measured(scored(0.9, 0.6))
    assert rows[""].value == pytest.approx(0.5)
    assert rows["seen"].value == pytest.approx(0.75)
    assert rows["unseen"].value == pytest.approx(0.0)


def test_kl_is_paid_for() -> None:
    # the same rewards at a KL of 3 nats: J .6 and .3, gains .1 and -.2
    assert measured(scored(0.9, 0.6, kl=3.0))[""].value == pytest.approx(-0.1 / 0.6)


def test_no_share_stands_without_the_gain_it_is_a_share_of() -> None:
    rows = measured(scored(0.9, 0.6))
    assert "possible gain 0.4 in J" in rows["preference: reflection"].reason
    assert "possible gain 0.2 in J" in rows["preference: empathy"].reason
    assert "possible gain 0.3 in J" in rows[""].reason


def test_seeds_are_instances_with_a_student_interval() -> None:
    value = measured(scored(0.9, 0.6), scored(0.9, 0.612))[""]  # shares .5 and .52: standard error .01
    assert value.per_seed == pytest.approx({0: 0.5, 1: 0.52})
    assert value.high == pytest.approx(0.51 + 12.7062 * 0.01, abs=1e-4)


def test_no_interval_goes_beyond_the_best_policies() -> None:
    """Shares .5 and .7: Student's t would reach to .6 + 1.27; the low end stays, as policies may be worse than base."""
    value = measured(scored(0.9, 0.6), scored(0.9, 0.72))[""]
    assert value.low == pytest.approx(0.6 - 12.7062 * 0.1, abs=1e-4)
    assert value.high == 1.0


def test_task_without_a_known_optimum_has_one_row_that_says_so() -> None:
    record = scored(0.9, 0.6, exact=False, reason="estimated from 64 samples of each prompt")
    rows = measured(record, known=False, listed=False)
    assert list(rows) == [""]
    assert rows[""].value is None
    assert rows[""].reason == "0 of 1 seeds: seed 0 has no known optimum (completions cannot be listed)"


def test_a_lost_record_of_what_can_be_reached_is_not_taken_for_a_task_without_one() -> None:
    lost = f"has no known optimum ({LOST})"
    assert measured(scored(0.9, 0.6), known=False)[""].reason == f"0 of 1 seeds: seed 0 {lost}"
    sampled = scored(0.9, 0.6, exact=False)  # another policy of the task was scored exactly
    assert measured(scored(0.9, 0.6), sampled, known=False)[""].reason == f"0 of 2 seeds: seed 0 {lost}, seed 1 {lost}"
    cells = [cell(seed=seed, outcomes=scored(0.9, 0.6)) for seed in (0, 1)]
    rows = CapturedShare().measure(study(cells, [INFO], truths={("counselling", 0): TRUTH}))
    assert rows[0].value.per_seed == pytest.approx({0: 0.5})
    assert f"1 of 2 seeds: seed 1 {lost}" in rows[0].value.reason


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (scored(0.9, 0.6, kl=float("nan"), exact=False, reason="no table"), "seed 0 has no KL (no table)"),
        (scored(0.9, 0.6, exact=False), "seed 0 has no KL (its policy can only be sampled)"),
        (None, "seed 0 has no record of exact scores"),
        (scored(float("nan"), 0.6), "seed 0 has exact scores that are no finite numbers"),
        (outcomes(np.zeros((1, 2, 1, 2)), np.zeros((1, 2, 1)), POINTS[:1]), "has no exact scores for a preference"),
    ],
)
def test_policy_without_exact_scores_has_no_share(record: OutcomeRecord | None, reason: str) -> None:
    value = measured(record)[""]
    assert value.value is None
    assert reason in value.reason


def test_every_prompt_counts_the_same() -> None:
    # the two prompts' rewards are 1 and .6 for the first preference, 1 and .2 for the second: means .8 and .6, KL 0
    rewards = np.array([[[[1.0, 0.0], [0.6, 0.0]]], [[[0.0, 1.0], [0.0, 0.2]]]])  # [M, S, P, K]
    known = truth(np.full((2, 2), 0.5), np.ones((2, 2, 2)), np.zeros((2, 2)), POINTS, BETA)
    record = outcomes(rewards, np.zeros((2, 1, 2)), POINTS, scales=(1.0,))
    records = study([cell(outcomes=record)], [INFO], truths={("counselling", 0): known})
    rows = {row.label: row.value.value for row in CapturedShare().measure(records)}
    assert rows[""] == pytest.approx((0.3 + 0.1) / (0.5 + 0.5))


def test_nothing_to_gain_is_no_share() -> None:
    flat = truth([[0.5, 0.5]], [[[0.5, 0.5]]] * 2, [[0.0]] * 2, POINTS, BETA)
    records = study([cell(outcomes=scored(0.9, 0.6))], [INFO], truths={("counselling", 0): flat})
    (value, *_) = (row.value for row in CapturedShare().measure(records))
    assert value.reason == "0 of 1 seeds: seed 0 has nothing to gain over the base model; possible gain 0 in J"


def test_base_is_0_the_optimum_1_and_every_policy_below_it() -> None:
    records = synthetic_study(exact=True)
    for row in CapturedShare().measure(records):
        assert row.value.value is not None
        assert 0 < row.value.value < 1
    optimum = scored(1.0, 0.8)
    assert measured(optimum)[""].value == pytest.approx(1.0)
    base = outcomes(np.full((2, 2, 1, 2), 0.5), np.zeros((2, 2, 1)), POINTS)
    assert measured(base)[""].value == pytest.approx(0.0)
