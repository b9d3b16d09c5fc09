from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paretune.tracking import TrackedRun
from paretune.tracking.names import metrics_of
from paretune.tracking.updates import Update
from told import event

RUN = TrackedRun("k", "name", "mine", {}, Path(), ("warm", "brief"), beta=0.1)


def told(**changes: Any) -> dict[str, float]:
    return metrics_of(Update("k", 1, 64, event("k", 1, **changes)), RUN)


def test_an_update_is_told_under_the_names_of_trl() -> None:
    assert told() == pytest.approx(
        {
            "reward": 0.375, "reward_std": 0.2, "frac_reward_zero_std": 0.5, "rewards/warm/mean": 0.5,
            "rewards/brief/mean": 0.25, "rewards/warm/std": 0.1, "rewards/warm/missing": 0, "rewards/brief/missing": 2,
            "weights/warm": 0.5, "weights/brief": 0.5, "kl": 0.5, "kl_per_completion": 2.0, "J": 0.375 - 0.1 * 2.0,
            "beta": 0.1, "completions": 64, "completions/mean_length": 4.0, "completions/min_length": 1,
            "completions/max_length": 8, "grad_norm": 3.0, "log_prob_gap": 0.0, "step_time": 0.5,
        }
    )  # fmt: skip


def test_what_only_some_methods_have_is_told_where_it_is() -> None:
    found = told(
        beta=0.2, clipped=[0.25, 0.5], ratio=[1.0, 1.5], entropy=0.7, conflicts=[None, 0.5], generation=2, individual=5
    )
    assert found["clip_ratio/region_mean"] == 0.25  # of three epochs, in the first of which no ratio can be clipped
    assert (found["ratio"], found["entropy"], found["generation"], found["individual"]) == (1.25, 0.7, 2, 5)
    assert (found["J"], found["conflicts/brief"]) == (0.375 - 0.2 * 2.0, 0.5)
    assert "conflicts/warm" not in found


def test_what_could_not_be_made_is_left_out_and_never_zero() -> None:
    found = told(reward=None, reward_std=None, reward_means=[None, 0.25])
    assert not {"reward", "reward_std", "J", "rewards/warm/mean"} & found.keys()
    assert found["rewards/brief/mean"] == 0.25


def test_values_of_somebody_elses_shape_are_left_out() -> None:
    found = told(kl=None, grad_norm="large", mean_weights=1.0, clipped=[0.25, None], ratio=3.0)
    assert not {"kl", "J", "grad_norm", "weights/warm", "clip_ratio/region_mean", "ratio"} & found.keys()
    assert found["reward"] == 0.375
