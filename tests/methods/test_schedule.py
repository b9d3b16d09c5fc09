from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paretune.core.errors import ConfigError, UnknownNameError
from paretune.core.preferences import centre, das_dennis
from paretune.core.task import Task
from paretune.methods.single_policy.schedule import Schedule, Scheduled, ScheduleSettings
from paretune.rl.weighting import Seen


def weights(updates: int, objectives: int = 3, **settings: Any) -> np.ndarray:
    made = Scheduled(centre(objectives), vars(ScheduleSettings(**settings)), np.asarray([[0, 1]] * objectives))
    return np.asarray(
        [
            made.weigh(
                Seen(
                    update,
                    centre(objectives),
                    np.zeros(objectives),
                    0.0,
                    None,
                    None,
                    np.random.default_rng([7, update]),
                )
            )
            for update in range(updates)
        ]
    )


def test_round_robin_takes_one_objective_an_update_in_turn_and_blocks_take_longer() -> None:
    assert weights(7, kind="round_robin").argmax(axis=1).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert weights(7, kind="blocks", block_updates=2).argmax(axis=1).tolist() == [0, 0, 1, 1, 2, 2, 0]
    assert set(weights(7, kind="round_robin").ravel()) == {0.0, 1.0}


def test_published_blocks_last_a_third_of_a_thousand_updates_and_the_last_wraps_to_the_first() -> None:
    taken = weights(1000, kind="blocks", block_updates=0).argmax(axis=1)
    assert np.flatnonzero(np.diff(taken)).tolist() == [332, 665, 998]
    assert taken[999] == 0


@pytest.mark.parametrize("draws", ["normal", "dirichlet"])
def test_random_weights_are_on_the_simplex_equal_on_average_and_repeat_by_update(draws: str) -> None:
    found = weights(3000, kind="random", draws=draws)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(found.mean(axis=0), 1 / 3, atol=0.018)  # 4 standard errors of a sd below .24
    np.testing.assert_array_equal(weights(5, kind="random", draws=draws), found[:5])
    assert len(np.unique(found[:, 0])) == 3000


def test_the_softmax_of_normals_is_not_the_dirichlet() -> None:
    # uniform on the 3-simplex: variance of a weight 2 / (9 * 4) = .0556; softmax of normals: .0496 by 1e5 draws
    assert weights(3000, kind="random", draws="dirichlet").var() == pytest.approx(0.0556, abs=0.0025)
    assert weights(3000, kind="random").var() == pytest.approx(0.0496, abs=0.0025)


def test_one_policy_gets_all_of_the_budget_whatever_is_wanted(task: Task, finish: Any) -> None:
    method = Schedule(ScheduleSettings(kind="round_robin"))
    stages = method.stages(task, das_dennis(2, 2), 1003, 3)
    assert [(stage.member["objective_weights"], stage.completions) for stage in stages] == [([0.5, 0.5], 1000)]
    assert stages == method.stages(task, np.asarray([[0.1, 0.9]]), 1003, 3)
    answer = method.assemble(task, das_dennis(2, 2), finish(stages)).answer
    assert answer.weights(das_dennis(2, 2))[0].tolist() == [[1]] * 3


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="kind must be one of blocks, random, round_robin, uniform, got 'rond'"):
        ScheduleSettings(kind="rond")
    with pytest.raises(UnknownNameError, match="draws must be one of dirichlet, normal, got 'uniform'"):
        ScheduleSettings(draws="uniform")
    with pytest.raises(ConfigError, match="block_updates must not be negative, got -1"):
        ScheduleSettings(block_updates=-1)
