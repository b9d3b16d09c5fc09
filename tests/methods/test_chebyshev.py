from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paretune.core.errors import ConfigError, UnknownNameError
from paretune.core.preferences import das_dennis
from paretune.core.task import Task
from paretune.methods.single_policy.chebyshev import Chebyshev, ChebyshevSettings, ChebyshevWeights
from paretune.pareto.scalarisation import chebyshev_utility, smooth_chebyshev_utility
from paretune.rl.weighting import Seen

KNOWN = {"ideal_point": [1.0, 1.0], "nadir_point": [0.0, 0.0], "beta": 0.5}
PREFERENCE = np.asarray([0.4, 0.6])


def weights(returns: Any, kl: float = 0.0, known: Any = KNOWN, **settings: Any) -> np.ndarray:
    made = ChebyshevWeights(PREFERENCE, {**vars(ChebyshevSettings(**settings)), **known}, np.asarray([[0, 1]] * 2))
    return made.weigh(Seen(0, PREFERENCE, np.asarray(returns), kl, None, None, np.random.default_rng(0)))


def test_plain_weighs_the_objective_that_lacks_most_alone() -> None:
    assert weights([0.2, 0.5], form="plain").tolist() == [1, 0]  # .4 * .8 = .32 against .6 * .5 = .3
    assert weights([0.3, 0.5], form="plain").tolist() == [0, 1]


def test_kl_lowers_every_score_by_beta_a_nat() -> None:
    # .4 * .7 = .28 < .6 * .5 = .3; at a nat J is (-.2, 0): .48 < .6; at -1.2 nats (.9, 1.1): .04 > -.06
    assert weights([0.3, 0.5], kl=1.0, form="plain").tolist() == [0, 1]
    assert weights([0.3, 0.5], kl=-1.2, form="plain").tolist() == [1, 0]


def test_augmented_leaves_the_others_their_share() -> None:
    # slopes (1 + .1) * .4 and .1 * .6
    np.testing.assert_allclose(weights([0.2, 0.5], form="augmented"), [0.44 / 0.5, 0.06 / 0.5])


def test_weights_are_the_gradient_of_the_utility_of_returns_up_to_their_sum() -> None:
    scores, step = np.asarray([0.3, 0.6]), 1e-6
    found = weights(scores, form="smooth")
    slopes = [
        smooth_chebyshev_utility(scores + d, PREFERENCE, [1, 1], [0, 0], 0.05)
        - smooth_chebyshev_utility(scores - d, PREFERENCE, [1, 1], [0, 0], 0.05)
        for d in step * np.eye(2)
    ]
    np.testing.assert_allclose(found, np.asarray(slopes) / np.sum(slopes), rtol=1e-6)


def test_following_the_weights_climbs_to_where_weighted_shortfalls_are_equal() -> None:
    """A policy of one parameter, an angle, with scores on a quarter circle, follows the weighted gradients."""
    for form in ("plain", "smooth", "augmented"):
        made = ChebyshevWeights(PREFERENCE, {**vars(ChebyshevSettings(form=form)), **KNOWN}, np.asarray([[0, 1]] * 2))
        angle = 0.1
        for update in range(400):
            scores = np.asarray([np.cos(angle), np.sin(angle)])
            seen = Seen(update, PREFERENCE, scores.copy(), 0.0, None, None, np.random.default_rng(0))
            weighed = made.weigh(seen)
            angle += 0.02 * (weighed @ [-np.sin(angle), np.cos(angle)])
        angles = np.linspace(0, np.pi / 2, 1000)
        circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        best = chebyshev_utility(circle, PREFERENCE, [1, 1], [0, 0]).max()
        assert chebyshev_utility(scores, PREFERENCE, [1, 1], [0, 0]) == pytest.approx(best, abs=0.03)
        linear = PREFERENCE / np.linalg.norm(PREFERENCE)
        assert chebyshev_utility(linear, PREFERENCE, [1, 1], [0, 0]) < best - 0.03  # the weighted sum's own optimum


def test_stages_know_the_ideal_of_the_task_and_what_replaces_it(task: Task) -> None:
    stage, *_ = Chebyshev(ChebyshevSettings(ideal={"first": 0.8}, nadir={"second": 0.25}, unit="share")).stages(
        task, das_dennis(2, 2), 4500, 0
    )
    assert (stage.settings["ideal_point"], stage.settings["nadir_point"]) == ([0.8, 1.0], [0.0, 0.25])
    assert stage.settings["beta"] == task.beta
    assert "ideal" not in stage.settings
    with pytest.raises(ConfigError, match=r"ideal must be above nadir, got \[0\.3, 1\.0\] and \[0\.4, 0\.0\]"):
        Chebyshev(ChebyshevSettings(ideal={"first": 0.3}, nadir={"first": 0.4})).stages(task, das_dennis(2, 2), 4500, 0)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"form": "sharp"}, UnknownNameError, "form must be one of augmented, plain, smooth, got 'sharp'"),
        ({"smoothing": 0.0}, ConfigError, "smoothing must be positive and augmentation not negative, got 0.0"),
        ({"augmentation": -1.0}, ConfigError, "smoothing must be positive .* got 0.05 and -1.0"),
        (
            {"target_kl": 2.0},
            ConfigError,
            "target_kl must be 0 for chebyshev, got 2.0: .* Write target_kl: 0, and choose",
        ),
        ({"memory": 1.0}, ConfigError, "memory must be at least 0 and below 1, got 1.0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ChebyshevSettings(**settings)
