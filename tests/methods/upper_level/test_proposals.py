from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.core.preferences import FloatArray, corners, das_dennis
from paretune.methods.hierarchical_grid import Found, Space
from paretune.methods.meta_policy.upper_level.proposals import (
    GROWTH,
    MirrorDescent,
    RandomPoints,
    SmallChanges,
    search_in_rounds,
)

SEARCHES = {"random": RandomPoints, "mirror": MirrorDescent, "changes": SmallChanges}


def made(name: str) -> Any:
    return {"random": RandomPoints(4), "mirror": MirrorDescent(0.2, 1.0), "changes": SmallChanges(3, 0.2)}[name]


def simplex(preferences: FloatArray, beyond: float = 0.0) -> Space:
    return Space(preferences.shape[1], preferences, True, preferences, beyond)


def searched(space: Space, proposals: Any, score: Any, rounds: int = 5) -> tuple[Found, list[tuple[FloatArray, int]]]:
    calls: list[tuple[FloatArray, int]] = []

    def measure(candidates: FloatArray, times: int) -> FloatArray:
        calls.append((candidates, times))
        return np.asarray([score(row) for row in candidates])

    evaluations = len(space.first_candidates) + rounds * proposals.each(space)
    found = search_in_rounds(space, proposals, rounds, evaluations, measure, np.random.default_rng(0))
    assert sum(found.times.values()) == sum(len(each) for each, _ in calls) == evaluations
    return found, calls


def bent(row: FloatArray) -> list[float]:
    """Return scores with the best weights of either objective inside the simplex: .9 and .3 of the first expert."""
    return [1 - (row[0] - 0.9) ** 2, 1 - (row[0] - 0.3) ** 2]


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("preferences", [das_dennis(2, 4), np.ones((1, 1))], ids=["two", "one"])
def test_preferences_are_measured_first_a_round_is_one_batch_and_nothing_is_measured_twice(
    name: str, preferences: FloatArray
) -> None:
    score = bent if preferences.shape[1] > 1 else lambda row: [float(row[0])]
    found, calls = searched(simplex(preferences), made(name), score)
    assert calls[0][0].tolist() == preferences.tolist()
    fresh = [tuple(row) for candidates, times in calls if times == 0 for row in candidates.tolist()]
    assert len(fresh) == len(set(fresh)) == len(found.candidates)
    assert sum(times == 0 for _, times in calls) <= 6  # the preferences, and five rounds
    for preference in preferences:
        at_best, own = found.of(np.stack([found.best(preference), preference])) @ preference
        assert at_best >= own


@pytest.mark.parametrize("name", ["mirror", "changes"])
def test_every_preference_comes_nearer_to_its_best_weights(name: str) -> None:
    preferences = das_dennis(2, 4)
    found, _ = searched(simplex(preferences), made(name), bent, rounds=8)
    for preference in preferences:
        best = preference @ [0.9, 0.3]  # where the derivative of the weighed sum is 0
        assert abs(found.best(preference)[0] - best) < max(0.06, 0.5 * abs(preference[0] - best))


@given(st.integers(2, 5), st.floats(0, 2), st.integers(0, 2**32 - 1))
def test_random_points_fill_the_enlarged_simplex(experts: int, beyond: float, seed: int) -> None:
    space = simplex(corners(experts), beyond)
    points = RandomPoints(50).ask(space, Found(), np.random.default_rng(seed))
    np.testing.assert_allclose(points.sum(axis=1), 1, atol=1e-9)
    assert (points >= -beyond / experts - 1e-9).all()
    if beyond > 1 and experts == 2:
        assert (points < 0).any()  # half of them or more: 50 inside have a chance of 2^-50


def test_a_step_of_mirror_descent_multiplies_by_the_exponentials_of_slopes() -> None:
    """At equal weights `u = g_1` has slopes (.5, -.5); a first step of rate ln 2 gives 2 : 1/2, that is .8 and .2."""
    space = simplex(np.asarray([[0.5, 0.5]]))
    search, found = MirrorDescent(0.2, math.log(2)), Found()
    asked = search.ask(space, found, np.random.default_rng(0))
    np.testing.assert_allclose(asked, [[0.5, 0.5], [0.6, 0.4], [0.4, 0.6]])
    found.add(asked, np.stack([asked[:, 0], asked[:, 0]], axis=1) * 7)  # whatever the unit
    np.testing.assert_allclose(search.ask(space, found, np.random.default_rng(0))[0], [0.8, 0.2])


def test_a_second_step_of_mirror_descent_is_shorter_by_the_slopes_of_both() -> None:
    """From (.8, .2) the points towards the corners are .84 and .64, so the slopes of `u = g_1` are (.2, -.8).

    Their largest square, .64, is added to the first step's, .25: the ratio of weights, 4, is multiplied by
    `exp(ln 2 (.2 + .8) / sqrt(.89)) = 2^(1 / sqrt(.89))`, to 8.34, where by the last slopes alone it would be 9.51.
    """
    space = simplex(np.asarray([[0.5, 0.5]]))
    search, found = MirrorDescent(0.2, math.log(2)), Found()
    for _ in range(2):
        asked = search.ask(space, found, np.random.default_rng(0))
        found.add(asked, np.stack([asked[:, 0], asked[:, 0]], axis=1) * 7)
    np.testing.assert_allclose(asked[:, 0], [0.8, 0.84, 0.64])
    ratio = 4 * 2 ** (1 / math.sqrt(0.89))
    after = search.ask(space, found, np.random.default_rng(0))[0]
    np.testing.assert_allclose(after, [ratio / (1 + ratio), 1 / (1 + ratio)])


def test_mirror_descent_stays_where_it_knows_nothing_and_leaves_a_corner() -> None:
    space = simplex(np.asarray([[1.0, 0.0]]))
    search, found = MirrorDescent(0.2, 1.0), Found()
    first = search.ask(space, found, np.random.default_rng(0))
    np.testing.assert_allclose(first[0], [0.99, 0.01])
    found.add(first, np.zeros((3, 2)))
    np.testing.assert_array_equal(search.ask(space, found, np.random.default_rng(0)), first)  # flat
    # eleven steps multiply the ratio of weights, 1 : 99, by about exp(sum of 1 / sqrt(t)) = exp(5.7): to 3 : 1
    best, _ = searched(space, MirrorDescent(0.2, 1.0), lambda row: [float(row[1]), 0.0], rounds=12)
    assert best.best(np.asarray([1.0, 0.0]))[1] > 0.7


def test_small_changes_grow_where_one_paid_and_four_failures_undo_it() -> None:
    space = Space(2, np.asarray([[1.0]]), True, np.asarray([[0.5]]).repeat(2, axis=1), 1.0)
    search, found, generator = SmallChanges(2, 0.1), Found(), np.random.default_rng(0)
    found.add(space.first_candidates, np.zeros((1, 1)))
    for gain in (1.0, 0.0, 0.0, 0.0, 0.0):
        found.add(search.ask(space, found, generator), np.full((2, 1), gain))
        steps = search.steps.copy()
    assert steps == pytest.approx([0.1 * GROWTH * GROWTH**-0.75])
    search.ask(space, found, generator)
    assert search.steps == pytest.approx([0.1])


def test_small_changes_leave_the_simplex_up_to_their_bound() -> None:
    space = simplex(np.asarray([[1.0, 0.0], [0.0, 1.0]]), beyond=0.5)
    found, _ = searched(space, SmallChanges(4, 0.3), lambda row: (2 * row).tolist(), rounds=12)
    assert found.best(np.asarray([1.0, 0.0]))[0] == 1.5
    assert (found.candidates >= -0.5).all()
    assert (found.candidates <= 1.5).all()
