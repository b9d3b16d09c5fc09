from __future__ import annotations

import numpy as np
import pytest

from paretune.bandits.arms import arms_of
from paretune.core.errors import ConfigError


def test_the_rule_is_the_first_arm_of_every_preference() -> None:
    prior = np.asarray([[1.0, 0.0, 0.0], [-0.5, 1.0, 0.5]])
    for divisions, stretch in ((1, 1.0), (2, 1.5), (3, 0.5)):
        np.testing.assert_array_equal(arms_of(3, divisions, 0.4, stretch).weights(prior)[:, 0], prior)


def test_arms_by_hand() -> None:
    arms = arms_of(2, 2, 0.25, 2.0)
    # towards (1, 0), (0, 1), (.5, .5) by a quarter from (.4, .6), then all of it twice
    wanted = np.asarray([[0.4, 0.6], [0.55, 0.45], [0.3, 0.7], [0.425, 0.575]])
    np.testing.assert_allclose(arms.weights(np.asarray([[0.4, 0.6]]))[0], np.concatenate([wanted, 2 * wanted]))
    assert arms.names()[:2] == ["rule, times 1", "rule and 0.25 towards (1, 0), times 1"]
    assert len(arms.names()) == len(set(arms.names())) == 8
    # whole steps are the points themselves, and without a stretch there is nothing outside
    np.testing.assert_allclose(arms_of(2, 1, 1.0, 1.0).weights(np.asarray([[0.4, 0.6]]))[0, 1:], np.eye(2))


def test_no_way_to_go_is_refused() -> None:
    with pytest.raises(ConfigError, match="divisions must be at least 1, got 0"):
        arms_of(2, 0, 0.5, 1.5)
    for step in (0.0, 1.5):
        with pytest.raises(ConfigError, match="step must be above 0 and at most 1"):
            arms_of(2, 1, step, 1.5)
    with pytest.raises(ConfigError, match="stretch must be positive, got 0"):
        arms_of(2, 1, 0.5, 0)


def test_arms_beyond_what_can_be_pulled_are_refused_before_they_are_made() -> None:
    # lattices of 3 experts have (d + 1) (d + 2) / 2 points: 42 divisions 946, 43 divisions 990, 44 divisions 1,035
    assert len(arms_of(3, 43, 0.5, 1.0).steps) == 991
    for divisions, stretch, got in ((44, 1.0, "1,036"), (43, 1.5, "1,982"), (10**6, 1.0, "500,001,500,002")):
        with pytest.raises(
            ConfigError, match=f"arms must be at most 1,000, got {got} of {divisions} divisions between"
        ):
            arms_of(3, divisions, 0.5, stretch)
