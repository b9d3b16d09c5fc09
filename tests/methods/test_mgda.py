from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike

from paretune.core.errors import ConfigError, WeightingError
from paretune.core.preferences import das_dennis
from paretune.core.task import Task
from paretune.methods.single_policy.mgda import MGDA, MGDASettings, MGDAWeights
from paretune.rl.weighting import Seen


def weights(gram: ArrayLike, wanted: ArrayLike, **settings: Any) -> np.ndarray[Any, Any]:
    row = np.asarray(wanted, dtype=np.float64)
    made = MGDAWeights(row, vars(MGDASettings(**settings)), np.asarray([[0, 1]] * len(row)))
    generator = np.random.default_rng(0)
    return made.weigh(Seen(0, row, row, 0.0, np.asarray(gram, dtype=np.float64), None, generator))


def test_orthogonal_gradients_of_one_length_are_weighed_by_the_preference() -> None:
    """w_k <g_k, d> >= |d|^2 scaled by 1 / w_k: rows g_k / w_k have squared norms 1 / w_k^2.

    The shortest vector weighs orthogonal rows as their inverse squared norms, w_k^2; on raw gradients w_k^2 / w_k.
    """
    np.testing.assert_allclose(weights(np.eye(2), [0.3, 0.7], normalise=0), [0.3, 0.7])
    np.testing.assert_allclose(weights(np.diag([4.0, 25.0]), [0.3, 0.7]), [0.3 / 2, 0.7 / 5] / np.sum([0.15, 0.14]))


def test_scaled_and_ignored_preferences_are_those_of_the_papers() -> None:
    """Rows w_k g_k: inverse squared norms 1 / w_k^2, on raw gradients 1 / w_k: as .7 to .3 for w = (.3, .7)."""
    np.testing.assert_allclose(weights(np.eye(2), [0.3, 0.7], normalise=0, preference="scaled"), [0.7, 0.3])
    np.testing.assert_allclose(
        weights(np.diag([1.0, 3.0]), [0.3, 0.7], normalise=0, preference="ignored"), [0.75, 0.25]
    )


def test_an_objective_of_no_preference_or_gradient_has_no_weight() -> None:
    np.testing.assert_array_equal(weights(np.eye(2), [1.0, 0.0]), [1, 0])
    np.testing.assert_array_equal(weights([[0, 0], [0, 2]], [0.5, 0.5]), [0, 1])
    np.testing.assert_array_equal(weights(np.zeros((2, 2)), [0.3, 0.7]), [0.3, 0.7])  # nothing to choose from


def test_weights_without_a_gram_matrix_are_refused() -> None:
    row = np.asarray([0.5, 0.5])
    made = MGDAWeights(row, vars(MGDASettings()), np.asarray([[0, 1], [0, 1]]))
    with pytest.raises(WeightingError, match="gram must be seen by MGDAWeights, got None"):
        made.weigh(Seen(0, row, row, 0.0, None, None, np.random.default_rng(0)))


def test_settings_reach_the_stages_and_their_experts_are_nobody_elses(task: Task) -> None:
    wanted = das_dennis(2, 2)
    made = {
        key: MGDA(MGDASettings(**settings)).stages(task, wanted, 6000, 0)[0]
        for key, settings in (("default", {}), ("plain", {"normalise": 0}), ("scaled", {"preference": "scaled"}))
    }
    assert made["default"].settings["weighting"] == "paretune.methods.single_policy.mgda:MGDAWeights"
    assert len({stage.key(task) for stage in made.values()}) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"normalise": 3}, "normalise must be one of 0, 1, 2"), ({"preference": "strict"}, "preference must be one of")],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MGDASettings(**settings)
