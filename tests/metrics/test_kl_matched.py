from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from builders import CEILING, cell, outcomes, study, synthetic_study, task_info, truth
from paretune.core.protocols import MetricValue
from paretune.metrics.kl_matched import Curve, KlMatched, common_levels, curve, utility_at
from paretune.records.outcomes import OutcomeRecord, TruthRecord
from paretune.records.study import CellRecord

TWO = ("reflection", "empathy")
POINTS = [[1.0, 0.0], [0.5, 0.5]]
INFO = task_info(preferences=POINTS, objectives=TWO, audit=())
NAN = float("nan")
BETAS = {0: 0.05, 1: 0.2}  # of the task instances


def scored(kl: Sequence[float], utilities: Sequence[float], exact: bool = True) -> OutcomeRecord:
    """Two preferences of the same mean utility and KL at every scale, over two prompts that differ by .2."""
    rewards = np.array(utilities)[None, :, None, None] + np.array([-0.1, 0.1])[None, None, :, None]
    kls = np.array(kl)[None, :, None] * np.array([0.5, 1.5])
    return outcomes(
        np.broadcast_to(rewards, (2, len(kl), 2, 2)),
        np.broadcast_to(kls, (2, len(kl), 2)),
        POINTS,
        scales=np.linspace(0, 1, len(kl)),
        exact=exact,
    )


def measured(cells: Sequence[CellRecord], levels: Sequence[float] | None = None) -> dict[tuple[str, str], MetricValue]:
    truths = {("counselling", seed): known(beta) for seed, beta in BETAS.items()}
    rows = KlMatched(levels).measure(study(cells, [INFO], truths=truths))
    return {(row.method, row.label): row.value for row in rows}


def known(beta: float) -> TruthRecord:
    return truth([[0.0, 0.0]], np.zeros((2, 1, 2)), np.zeros((2, 1)), POINTS, beta)


def test_curve_averages_over_preferences_and_prompts() -> None:
    record = outcomes(
        [[[[0.0, 0.0]], [[0.8, 0.1]]], [[[0.2, 0.0]], [[0.4, 0.6]]]], [[[0.0], [3.0]], [[0.0], [1.0]]], POINTS
    )
    found = curve(cell(outcomes=record), INFO)
    assert isinstance(found, Curve)
    # w . r: 0 and .1 at scale 0; .8 and .5 (.4 + .6) = .5 at scale 1
    np.testing.assert_allclose(found.utilities, [0.05, 0.65])
    np.testing.assert_allclose(found.kl, [0.0, 2.0])


def test_levels_are_quarters_of_the_smallest_reach_and_values_lie_on_straight_lines() -> None:
    cells = [
        cell("linear", outcomes=scored([0, 1, 2], [0.5, 0.7, 0.8])),
        cell("weight_grid", outcomes=scored([0, 2, 4], [0.5, 0.9, 1.0])),
    ]
    rows = measured(cells)
    labels = ["utility at KL 0.5", "utility at KL 1", "utility at KL 1.5", "utility at KL 2"]
    assert [rows["linear", label].value for label in labels] == pytest.approx([0.6, 0.7, 0.75, 0.8])
    assert [rows["weight_grid", label].value for label in labels] == pytest.approx([0.6, 0.7, 0.8, 0.9])


def test_exact_scores_give_j_as_well() -> None:
    rows = measured([cell(outcomes=scored([0, 2], [0.5, 0.9]))])
    assert rows["linear", "J at KL 2"].value == pytest.approx(0.9 - 0.05 * 2)
    rows = measured([cell(outcomes=scored([0, 2], [0.5, 0.9], exact=False))])
    assert ("linear", "J at KL 2") not in rows


def test_j_of_each_seed_is_priced_with_beta_of_its_own_instance() -> None:
    rows = measured([cell(seed=seed, outcomes=scored([0, 2], [0.5, 0.9])) for seed in (0, 1, 2)])
    found = rows["linear", "J at KL 2"]
    assert found.per_seed == pytest.approx({0: 0.9 - 0.05 * 2, 1: 0.9 - 0.2 * 2})
    assert "seed 2 has no record of its task instance's beta" in found.reason
    assert len(rows["linear", "utility at KL 2"].per_seed) == 3


def test_the_ceiling_sets_no_level() -> None:
    cells = [
        cell("linear", outcomes=scored([0, 2], [0.5, 0.9])),
        cell(CEILING, outcomes=scored([0, 1], [0.5, 0.9])),
    ]
    rows = measured(cells)
    assert rows["linear", "utility at KL 2"].value == pytest.approx(0.9)
    assert rows[CEILING, "utility at KL 2"].reason == "0 of 1 seeds: seed 0 ends at KL 1"


def test_a_seed_that_ends_early_takes_the_value_of_its_method_and_no_other() -> None:
    cells = [
        cell("linear", 0, outcomes=scored([0, 1], [0.5, 0.6])),
        cell("linear", 1, outcomes=scored([0, 4], [0.5, 0.9])),
        cell("weight_grid", 0, outcomes=scored([0, 4], [0.5, 0.9])),
        cell("weight_grid", 1, outcomes=scored([0, 4], [0.5, 0.9])),
    ]
    rows = measured(cells, levels=[1.0, 2.0])
    assert rows["linear", "utility at KL 2"].value is None
    assert rows["linear", "utility at KL 2"].reason == (
        "0 of 2 seeds: seed 0 ends at KL 1, seed 1 is left out, since another seed ends before"
    )
    assert rows["weight_grid", "utility at KL 2"].value == pytest.approx(0.7)
    assert rows["linear", "utility at KL 1"].value == pytest.approx(0.6)


def test_policies_at_one_scale_only_have_no_curve() -> None:
    rows = KlMatched().measure(synthetic_study(seeds=(0,)))
    assert {row.label for row in rows} == {""}
    assert {row.value.reason for row in rows} == {
        "0 of 1 seeds: seed 0 has no policies scored at several scales (evaluation: kl_matched)"
    }


def test_a_policy_without_kl_has_no_value_and_says_why() -> None:
    blind = outcomes(np.zeros((2, 2, 1, 2)), np.full((2, 2, 1), NAN), POINTS, exact=False, reason="no table")
    rows = measured([cell("linear", outcomes=blind), cell("weight_grid", outcomes=scored([0, 1], [0.5, 0.6]))])
    assert rows["linear", "utility at KL 1"].reason == "0 of 1 seeds: seed 0 has no KL (no table)"


def test_a_prompt_without_a_reward_is_left_out_at_every_scale() -> None:
    rewards = np.full((2, 2, 2, 2), 0.5)
    rewards[:, :, 1] = 0.9
    rewards[0, 1, 1, 0] = NAN
    found = curve(cell(outcomes=outcomes(rewards, [[[0.0, 0.0], [1.0, 3.0]]] * 2, POINTS, exact=False)), INFO)
    assert isinstance(found, Curve)
    np.testing.assert_allclose(found.utilities, [0.5, 0.5])
    np.testing.assert_allclose(found.kl, [0.0, 1.0])
    rewards[...] = NAN
    lost = curve(cell(outcomes=outcomes(rewards, np.zeros((2, 2, 2)), POINTS, exact=False)), INFO)
    assert lost == "has no prompt with all rewards at every scale"


def test_methods_that_stay_at_the_base_model_leave_no_level() -> None:
    assert common_levels([Curve(np.zeros(2), np.zeros(2))]) == ()
    rows = measured([cell(outcomes=scored([0, 0], [0.5, 0.5]))])
    assert "stays at the base model" in rows["linear", ""].reason


def test_curve_is_read_where_it_first_reaches_a_level() -> None:
    bent = Curve(np.array([0.0, 2.0, 1.0]), np.array([0.5, 0.7, 0.9]))
    assert utility_at(bent, 1.0) == pytest.approx(0.6)
    assert utility_at(bent, 0.0) == 0.5
    assert np.isnan(utility_at(bent, 2.5))
