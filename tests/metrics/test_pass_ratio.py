from dataclasses import replace

import numpy as np
import pytest

from builders import cell, evaluation, study, task_info
from paretune.metrics.pass_ratio import PassRatio

NAN = float("nan")


def measured(rewards, thresholds=(0.5, 0.5, None), audit_threshold=None, cells=None):
    info = task_info(preferences=[[1, 0, 0]], thresholds=thresholds)
    if audit_threshold is not None:
        audit = replace(info.objectives[-1], pass_threshold=audit_threshold)
        info = replace(info, objectives=(*info.objectives[:-1], audit))
    if cells is None:
        cells = [cell(evaluations=[evaluation(rewards, [1, 0, 0], audit=("fluency",))])]
    rows = PassRatio().measure(study(cells, [info]))
    return {row.label: row.value for row in rows}


def test_completion_passes_when_every_threshold_is_reached():
    rows = measured([[0.5, 0.9, 0.0, 1.0], [0.9, 0.4, 0.0, 1.0], [0.4, 0.4, 0.0, 1.0], [0.7, 0.7, 0.0, 1.0]])
    assert rows[""].value == 0.5  # first and last; .5 reaches .5
    assert rows["reflection"].value == 0.75
    assert rows["empathy"].value == 0.5
    assert "brevity" not in rows  # has no threshold
    assert "audit: fluency" not in rows


def test_audit_has_its_own_row_and_fails_nobody():
    rows = measured([[0.9, 0.9, 0.0, 0.1], [0.9, 0.9, 0.0, 0.8]], audit_threshold=0.5)
    assert rows[""].value == 1.0
    assert rows["audit: fluency"].value == 0.5


def test_completion_without_a_reward_is_left_out_and_counted():
    # of four, the second and third have all rewards that are asked for; one of them passes
    rows = measured([[0.9, NAN, 0, 0], [0.9, 0.9, NAN, 0], [0.9, 0.1, 0, 0], [NAN, 0.9, 0, 0]])
    assert rows[""].value == 0.5
    assert "2 of 4 completions lack a reward and are left out" in rows[""].reason
    assert rows["reflection"].value == 1.0
    assert "1 of 4" in rows["reflection"].reason
    assert rows["empathy"].value == pytest.approx(2 / 3)


def test_no_reward_at_all_is_no_value():
    rows = measured([[0.9, NAN, 0, 0]])
    assert rows["empathy"].value is None
    assert "seed 0 has no completion with all rewards" in rows["empathy"].reason
    assert rows["reflection"].value == 1.0


def test_task_without_thresholds_has_no_ratio():
    rows = measured([[0.9, 0.9, 0.9, 0.9]], thresholds=(None, None, None))
    assert list(rows) == [""]
    assert rows[""].value is None
    assert rows[""].reason == "no objective of the task has a pass threshold"


def test_shares_are_averaged_over_seeds():
    shares = ([[0.9] * 4, [0.1] * 4], [[0.9] * 4, [0.9] * 4])  # one half, one
    cells = [
        cell(seed=seed, evaluations=[evaluation(np.array(rewards), [1, 0, 0], audit=("fluency",))])
        for seed, rewards in enumerate(shares)
    ]
    value = measured(None, cells=[*cells, cell(seed=2, state="failed", reason="out_of_memory")])[""]
    assert value.value == 0.75
    assert value.per_seed == {0: 0.5, 1: 1.0}
    assert value.reason == "2 of 3 seeds: seed 2 failed (out_of_memory)"
