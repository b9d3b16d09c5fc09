from __future__ import annotations

from dataclasses import replace

import pytest

from paretune.core.errors import ConfigError, UnknownNameError
from paretune.core.task import Task
from paretune.methods.objective_values import check_values, values_of


def test_values_are_in_units_of_the_reward_or_shares_of_the_way_up(task: Task) -> None:
    first = replace(task.objectives[0], range=(-1.0, 3.0))
    wide = replace(task, objectives=(first, *task.objectives[1:]))
    assert values_of("thresholds", {"first": 2.0}, "reward", wide) == [2.0, None]
    assert values_of("thresholds", {"first": 0.25, "second": 0.5}, "share", wide) == [0.0, 0.5]
    assert values_of("thresholds", {}, "share", wide) == [None, None]


def test_what_no_task_or_this_one_cannot_have_is_refused(task: Task) -> None:
    with pytest.raises(
        ConfigError, match=r"ideal must name objectives of the task \(first, second\), got 'frist'\. Did"
    ):
        values_of("ideal", {"frist": 0.5}, "reward", task)
    with pytest.raises(ConfigError, match=r"ideal\.first must lie in its range from 0 to 1, got 1\.5"):
        values_of("ideal", {"first": 1.5}, "reward", task)
    with pytest.raises(ConfigError, match=r"ideal\.first must be from 0 to 1 where unit is share, got 1\.5"):
        check_values("ideal", {"first": 1.5}, "share")
    with pytest.raises(ConfigError, match=r"ideal\.first must be finite, got inf"):
        check_values("ideal", {"first": float("inf")}, "reward")
    with pytest.raises(UnknownNameError, match="unit must be one of reward, share, got 'percent'"):
        check_values("ideal", {}, "percent")
