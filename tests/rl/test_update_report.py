from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from paretune.rl.update_report import completions_event

NAN = float("nan")


def described(rewards: Any, weights: Any, shaped: Any = None, group_size: int = 2) -> dict[str, Any]:
    rows = torch.tensor(rewards, dtype=torch.float64)
    statuses = np.where(np.isnan(rows.numpy()), "missing", "ok")
    kl = torch.linspace(0.0, 1.0, len(rows), dtype=torch.float64)
    lengths = torch.arange(1, len(rows) + 1)
    told = rows if shaped is None else torch.tensor(shaped, dtype=torch.float64)
    each = torch.tensor(weights, dtype=torch.float64).expand(len(rows), -1)
    return completions_event(rows, told, each, statuses, kl, lengths, group_size)


def test_raw_rewards_their_weighed_sum_and_the_weights_are_told() -> None:
    """Sums are .25 r_1 + .75 r_2 = .25, .75, .25, .25: mean .375, variance (.125^2 3 + .375^2) / 3 = .0625."""
    found = described([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]], [[0.25, 0.75]])
    assert found["reward_means"] == [0.75, 0.25]
    assert found["reward_stds"] == pytest.approx([0.5, 0.5])  # variance (3 .25^2 + .75^2) / 3 = .25
    assert (found["reward"], found["reward_std"]) == pytest.approx((0.375, 0.25))
    assert found["mean_weights"] == [0.25, 0.75]
    assert found["flat_groups"] == 0.5  # the second group's sums are equal
    assert (found["kl"], found["mean_length"], found["shortest"], found["longest"]) == (0.5, 2.5, 1, 4)
    assert found["missing"] == [0, 0]


def test_each_completion_counts_by_weights_of_its_own() -> None:
    found = described([[1.0, 0.0], [0.0, 0.5]], [[1.0, 0.0], [0.0, 1.0]])
    assert (found["reward"], found["mean_weights"]) == (0.75, [0.5, 0.5])


def test_the_sum_is_of_shaped_rewards_and_means_are_of_those_given() -> None:
    found = described([[1.0], [3.0]], [[1.0]], shaped=[[10.0], [30.0]])
    assert (found["reward_means"], found["reward"]) == ([2.0], 20.0)


def test_a_missing_reward_that_counts_leaves_its_sum_out_and_one_that_does_not_changes_nothing() -> None:
    found = described([[NAN, 1.0], [0.5, 1.0], [0.25, NAN], [0.75, 1.0]], [[1.0, 0.0]])
    assert (found["reward"], found["missing"]) == (0.5, [1, 1])
    assert found["flat_groups"] == 0.0  # of the second group; one sum alone has nothing to differ from
    nothing = described([[NAN, 1.0], [NAN, 1.0]], [[1.0, 0.0]])
    assert (nothing["reward"], nothing["reward_std"], nothing["reward_means"]) == (None, None, [None, 1.0])
    assert nothing["flat_groups"] is None  # an outage is not the same as nothing to learn
