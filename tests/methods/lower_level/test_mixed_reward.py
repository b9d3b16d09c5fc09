from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from paretune.core.errors import ConfigError
from paretune.core.task import Task
from paretune.methods.meta_policy.bone_soups import BoneSoups, BoneSoupsSettings
from paretune.methods.meta_policy.lower_level.mixed_reward import MixedReward
from paretune.methods.meta_policy.rewarded_soups import RewardedSoups, RewardedSoupsSettings

WANTED = np.asarray([[0.5, 0.5]])


@pytest.mark.parametrize(("beta", "expected"), [(0.6, (-2, 3)), (0.7, (-0.75, 1.75)), (0.8, (-1 / 3, 4 / 3))])
def test_weights_at_a_corner_on_paper(beta: float, expected: tuple[float, float]) -> None:
    # B^-1 = [[b, b - 1], [b - 1, b]] / (b^2 - (1 - b)^2), and b^2 - (1 - b)^2 = 2 b - 1; its second column
    assert_allclose(np.asarray([0.0, 1.0]) @ MixedReward(beta).prior(2), expected)


def test_three_objectives_on_paper() -> None:
    # B = (b - r) I + r 11' with b = .7 and r = .15: B^-1 = (I - r 11') / (b - r), as b + 2 r = 1
    assert_allclose(MixedReward(0.7).mixing(3), [[0.7, 0.15, 0.15], [0.15, 0.7, 0.15], [0.15, 0.15, 0.7]])
    assert_allclose(MixedReward(0.7).prior(3), (np.eye(3) - 0.15) / 0.55)


def test_one_objective_has_one_expert_and_no_mixture() -> None:
    assert_allclose(MixedReward(0.7).mixing(1), [[1.0]])
    assert_allclose(MixedReward(0.7).prior(1), [[1.0]])


def test_rewards_that_are_not_mixed_are_rewarded_soups(task: Task) -> None:
    bones, soups = BoneSoups(BoneSoupsSettings(beta=1.0)), RewardedSoups(RewardedSoupsSettings())
    planned = [method.stages(task, WANTED, 1004, 3) for method in (bones, soups)]
    assert [stage.key(task) for stage in planned[0]] == [stage.key(task) for stage in planned[1]]
    assert MixedReward(1.0).prior(3).tolist() == np.eye(3).tolist()
    mixed = BoneSoups(BoneSoupsSettings()).stages(task, WANTED, 1004, 3)
    assert [stage.member["objective_weights"] for stage in mixed] == [
        [0.7, pytest.approx(0.3)], [pytest.approx(0.3), 0.7]
    ]  # fmt: skip


def test_extrapolation_goes_on_from_the_base_model() -> None:
    # (1 + alpha) theta - alpha theta_0 = theta_0 + (1 + alpha) Delta: all weights are 1 + alpha times as large
    assert_allclose(MixedReward(0.7, 0.25).prior(2), 1.25 * MixedReward(0.7).prior(2))


def test_bone_soups_are_the_experts_of_the_kind(task: Task) -> None:
    """The row of its own name and the kind of another method share their stages."""
    settings = RewardedSoupsSettings(experts={"kind": "mixed_reward", "beta": 0.6})
    named = BoneSoups(BoneSoupsSettings(beta=0.6)).stages(task, WANTED, 1004, 3)
    chosen = RewardedSoups(settings).stages(task, WANTED, 1004, 3)
    assert [stage.key(task) for stage in named] == [stage.key(task) for stage in chosen]


def test_a_beta_that_prefers_no_own_objective_is_refused(task: Task) -> None:
    with pytest.raises(ConfigError, match=r"must be above 1/K \(1/2\), got 0.5"):
        BoneSoups(BoneSoupsSettings(beta=0.5)).stages(task, WANTED, 1004, 0)
    with pytest.raises(ConfigError, match=r"above 1/K and at most 1, got 1.2"):
        BoneSoupsSettings(beta=1.2)
    MixedReward(0.5).mixing(3)
