from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from paretune.core.errors import ConfigError, UnknownNameError
from paretune.core.preferences import das_dennis
from paretune.core.task import Task
from paretune.methods.single_policy.thresholds import (
    Thresholds,
    ThresholdShaping,
    ThresholdsSettings,
    ThresholdWeights,
)
from paretune.pareto.scalarisation import threshold_utility
from paretune.rl.weighting import Seen

PREFERENCE = np.asarray([0.5, 0.5])
UNIT = np.asarray([[0.0, 1.0], [0.0, 1.0]])
SETTINGS = {**vars(ThresholdsSettings()), "threshold_point": [0.5, 0.4], "beta": 0.1}


def test_completions_are_bent_at_the_thresholds_and_a_missing_reward_stays_missing() -> None:
    rewards = torch.tensor([[0.9, 0.2], [0.5, float("nan")]], dtype=torch.float64)
    shaped = ThresholdShaping(PREFERENCE, SETTINGS, UNIT).shape(rewards)
    np.testing.assert_allclose(shaped[0], [0.5 + 0.1 * 0.4, 0.2])
    assert shaped[1, 0] == 0.5
    assert shaped[1, 1].isnan()
    assert float(shaped[0].numpy() @ PREFERENCE) == pytest.approx(
        float(threshold_utility(rewards[0], PREFERENCE, [0.5, 0.4], 0.1))
    )


def test_what_is_expected_weighs_less_once_it_is_reached() -> None:
    made = ThresholdWeights(PREFERENCE, SETTINGS, UNIT)
    seen = Seen(0, PREFERENCE, np.asarray([0.6, 0.45]), 0.0, None, None, np.random.default_rng(0))
    assert made.weigh(seen).tolist() == [0.5, 0.5]  # both reached: both count a tenth
    made = ThresholdWeights(PREFERENCE, SETTINGS, UNIT)
    seen = Seen(0, PREFERENCE, np.asarray([0.6, 0.45]), 1.0, None, None, np.random.default_rng(0))
    np.testing.assert_allclose(made.weigh(seen), [0.1 / 1.1, 1 / 1.1])  # a nat costs .1: J is (.5, .35)


def test_the_two_levels_prefer_other_policies() -> None:
    """Half of all completions perfect and half useless, or all of them middling: equal on average."""
    mixed, steady = np.asarray([[1.0, 1.0], [0.0, 0.0]]), np.asarray([[0.5, 0.5], [0.5, 0.5]])

    def utility(rewards: Any) -> Any:
        return threshold_utility(rewards, PREFERENCE, [0.5, 0.5], 0.1)

    assert utility(mixed.mean(axis=0)) == utility(steady.mean(axis=0)) == 0.5
    assert utility(mixed).mean() == pytest.approx(0.275)
    assert utility(steady).mean() == 0.5


def test_thresholds_are_those_given_else_pass_thresholds_else_the_middle(task: Task) -> None:
    def point(**settings: Any) -> Any:
        made = Thresholds(ThresholdsSettings(**settings))
        return made.stages(task, das_dennis(2, 2), 4500, 0)[0].settings["threshold_point"]

    assert [each.pass_threshold for each in task.objectives] == [0.5, 0.5]
    assert point() == [0.5, 0.5]
    assert point(thresholds={"second": 0.8}, level="expected") == [0.5, 0.8]


def test_beta_may_be_steered_where_the_utility_is_of_completions(task: Task) -> None:
    made = Thresholds(ThresholdsSettings(target_kl=2.0)).stages(task, das_dennis(2, 2), 4500, 0)
    assert made[0].settings["target_kl"] == 2.0


def test_each_level_has_its_own_slot(task: Task) -> None:
    completion, expected = (
        Thresholds(ThresholdsSettings(level=level)).stages(task, das_dennis(2, 2), 4500, 0)[0].settings
        for level in ("completion", "expected")
    )
    assert "shaping" in completion
    assert "weighting" not in completion
    assert "weighting" in expected
    assert "shaping" not in expected


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"level": "prompt"}, UnknownNameError, "level must be one of completion, expected, got 'prompt'"),
        (
            {"level": "expected", "target_kl": 2.0},
            ConfigError,
            r"target_kl must be 0 for thresholds at level expected, got 2\.0: the utility pays for the KL with",
        ),
        ({"beyond": 0.0}, ConfigError, "beyond must be above 0 and below 1, got 0.0"),
        ({"thresholds": {"first": float("nan")}}, ConfigError, "thresholds.first must be finite, got nan"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ThresholdsSettings(**settings)
