from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pytest

from paretune.bandits.arms import MOST_ARMS, arms_of, check_arms
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


@pytest.mark.parametrize(
    ("experts", "divisions", "stretch", "arms"),
    [
        (2, 998, 1.0, 1000), (2, 999, 1.0, 1001),  # a lattice of 2 experts has d + 1 points
        (2, 498, 1.5, 1000), (2, 499, 1.5, 1002),  # once more stretched
        (3, 43, 1.0, 991), (3, 44, 1.0, 1036),  # one of 3 has (d + 1) (d + 2) / 2
    ],
)  # fmt: skip
def test_a_thousand_arms_can_be_pulled_and_no_more(experts: int, divisions: int, stretch: float, arms: int) -> None:
    assert len(arms_of(experts, divisions, 0.5, stretch).steps) == arms  # those of a saved gate are made all the same
    message = f"arms must be at most 1,000, got {arms:,} of {divisions} divisions between {experts} experts"
    with pytest.raises(ConfigError, match=message) if arms > MOST_ARMS else nullcontext():
        check_arms(experts, divisions, 0.5, stretch)


def test_arms_beyond_all_memory_are_refused_before_they_are_made() -> None:
    with pytest.raises(ConfigError, match="arms must be at most 1,000, got 500,001,500,002 of 1000000 divisions"):
        check_arms(3, 10**6, 0.5, 1.0)


@pytest.mark.parametrize("check", [arms_of, check_arms])
def test_no_way_to_go_is_refused(check: Callable[[int, int, float, float], object]) -> None:
    for divisions in (0, -5):
        with pytest.raises(ConfigError, match=f"divisions must be at least 1, got {divisions}"):
            check(2, divisions, 0.5, 1.5)
    for step in (0.0, 1.5):
        with pytest.raises(ConfigError, match="step must be above 0 and at most 1"):
            check(2, 1, step, 1.5)
    with pytest.raises(ConfigError, match="stretch must be positive, got 0"):
        check(2, 1, 0.5, 0)
