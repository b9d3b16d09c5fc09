from __future__ import annotations

import numpy as np
import pytest

from paretune.core.errors import ConfigError
from paretune.rl.running_returns import RunningReturns


def test_estimates_are_weighted_means_without_the_bias_of_the_start() -> None:
    returns = RunningReturns(np.asarray([0.5]), 0.8)
    assert returns.estimates.tolist() == [0.5]
    assert returns.add(np.asarray([1.0])).tolist() == pytest.approx([1.0])
    # weights .16 and .2: (.16 * 1 + .2 * 4) / .36
    assert returns.add(np.asarray([4.0])).tolist() == pytest.approx([0.96 / 0.36])


def test_a_missing_return_leaves_its_estimate_and_no_other() -> None:
    returns = RunningReturns(np.asarray([0.5, 0.5]), 0.5)
    returns.add(np.asarray([1.0, np.nan]))
    assert returns.estimates.tolist() == [1.0, 0.5]
    returns.add(np.asarray([np.nan, 0.2]))
    assert returns.estimates.tolist() == [1.0, pytest.approx(0.2)]


def test_without_memory_the_last_returns_are_the_estimate() -> None:
    returns = RunningReturns(np.zeros(1), 0.0)
    assert [returns.add(np.asarray([value])).tolist() for value in (0.3, 0.9)] == [[0.3], [0.9]]


@pytest.mark.parametrize("memory", [-0.1, 1.0, float("nan")])
def test_a_memory_out_of_range_is_refused(memory: float) -> None:
    with pytest.raises(ConfigError, match="memory must be at least 0 and below 1, got"):
        RunningReturns(np.zeros(1), memory)
