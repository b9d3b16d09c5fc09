from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import ArrayLike

from paretune.core.errors import ConfigError, UnknownNameError, WeightingError
from paretune.core.preferences import das_dennis
from paretune.core.task import Task
from paretune.methods import resolve_method
from paretune.methods.gradient_weights import GradientWeights, RescaledSettings, rescaling
from paretune.methods.single_policy.cagrad import CAGradWeights
from paretune.methods.single_policy.mgda import MGDAWeights
from paretune.methods.single_policy.pcgrad import PCGradWeights
from paretune.methods.single_policy.upgrad import UPGradWeights
from paretune.rl.gradient_step import GradientStep
from paretune.rl.weighting import Seen

KINDS: dict[str, type[GradientWeights]] = {
    "mgda": MGDAWeights, "pcgrad": PCGradWeights, "cagrad": CAGradWeights, "upgrad": UPGradWeights,
}  # fmt: skip
RANGES = np.asarray([[0.0, 1.0]] * 2)


def weights(name: str, gram: ArrayLike | None, wanted: ArrayLike, **settings: Any) -> np.ndarray[Any, Any]:
    row = np.asarray(wanted, dtype=np.float64)
    made = KINDS[name](row, vars(resolve_method(name).Settings(**settings)), RANGES)
    given = None if gram is None else np.asarray(gram, dtype=np.float64)
    return made.weigh(Seen(0, row, row, 0.0, given, None, np.random.default_rng(0)))


@pytest.mark.parametrize("name", KINDS)
def test_one_objective_that_counts_is_trained_alone(name: str) -> None:
    row = weights(name, [[1.0, -0.9], [-0.9, 1.0]], [1.0, 0.0])
    assert row[0] > 0
    assert row[1] == 0


@pytest.mark.parametrize("name", KINDS)
def test_without_any_gradient_the_preference_is_left(name: str) -> None:
    assert_allclose(weights(name, np.zeros((2, 2)), [0.3, 0.7]), [0.3, 0.7])


@pytest.mark.parametrize("name", ["pcgrad", "upgrad"])
def test_without_a_conflict_they_are_linear_and_the_preference_scales_what_is_projected(name: str) -> None:
    assert_allclose(weights(name, [[1.0, 0.1], [0.1, 4.0]], [0.3, 0.7]), [0.3, 0.7])
    # w1 (g1 + g2 / 4) + w2 (g2 + g1), as <g1, g2> = -1
    assert_allclose(weights(name, [[1.0, -1.0], [-1.0, 4.0]], [0.4, 0.6]), [0.4 + 0.6, 0.6 + 0.1])


def test_cagrad_is_linear_without_radius_and_compares_as_it_is_told() -> None:
    gram = [[1.0, 0.0], [0.0, 9.0]]
    assert_allclose(weights("cagrad", gram, [0.3, 0.7], c=0.0), [0.3, 0.7])
    shares = {
        name: 1.4 * weights("cagrad", gram, [0.3, 0.7], normalise=normalise, preference=name) - [0.3, 0.7]
        for name, normalise in (("shared", 1), ("scaled", 1), ("ignored", 0))
    }
    # the first, of the small gradient and preference, gains .3, the second .7 * 9: all that is added goes to the first
    assert shares["ignored"][1] == pytest.approx(0)
    assert shares["ignored"][0] > 0
    assert shares["scaled"][0] > shares["shared"][0]


@pytest.mark.parametrize("name", KINDS)
def test_weights_without_a_gram_matrix_are_refused(name: str) -> None:
    with pytest.raises(WeightingError, match=f"gram must be seen by {KINDS[name].__name__}, got None"):
        weights(name, None, [0.5, 0.5])


def test_rescaling_says_how_gradients_are_compared() -> None:
    row = np.asarray([0.3, 0.7])
    assert rescaling(row, vars(RescaledSettings(normalise=2, preference="ignored"))) == {"norm_power": 2}
    found = rescaling(row, vars(RescaledSettings()))
    assert (found["norm_power"], found["preference_power"], found["preference"].tolist()) == (1, -1, [0.3, 0.7])


@pytest.mark.parametrize("name", KINDS)
def test_settings_reach_the_stages_and_the_step_rule(name: str, task: Task) -> None:
    found = resolve_method(name)
    made = [
        found(found.Settings(**settings)).stages(task, das_dennis(2, 2), 6000, 0)
        for settings in ({}, {"metric": "plain"}, {"optimiser": "sgd"})
    ]
    assert len({stages[0].key(task) for stages in made}) == 3
    assert made[0][0].settings["weighting"] == f"paretune.methods.single_policy.{name}:{KINDS[name].__name__}"
    rules = [KINDS[name](np.asarray([0.5, 0.5]), stages[0].settings, RANGES).step_rule for stages in made]
    assert rules == [GradientStep(), GradientStep("plain"), GradientStep("optimiser", "sgd")]
    assert [rule.smoothed for rule in rules] == [True, False, False]


@pytest.mark.parametrize(
    ("name", "settings", "error", "message"),
    [
        ("pcgrad", {"metric": "euclidean"}, UnknownNameError, "metric must be one of optimiser, plain"),
        ("upgrad", {"optimiser": "lion"}, UnknownNameError, "optimiser must be one of adamw, sgd"),
        ("cagrad", {"c": -0.1}, ConfigError, "c must be at least 0 and finite, got -0.1"),
        ("cagrad", {"normalise": 3}, UnknownNameError, "normalise must be one of 0, 1, 2"),
    ],
)
def test_settings_out_of_range_are_refused(
    name: str, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        resolve_method(name).Settings(**settings)
