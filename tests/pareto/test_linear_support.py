from __future__ import annotations

import itertools

import numpy as np
import pytest

from paretune.core.errors import ConfigError, NonFiniteError, PreferenceError, ShapeError
from paretune.pareto.linear_support import corner_weights, possible_gains


def exact_set(objectives: int, draws: np.random.Generator, count: int = 9) -> np.ndarray:
    """Return points of the unit sphere: each is the only best one for its own direction."""
    points = np.abs(draws.standard_normal((count, objectives)))
    return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True))


def test_corners_of_three_lines_are_those_on_paper() -> None:
    """Share t of the first: lines t, 1 - t and .75 - .25 t cross at .6 (first and third) and 1/3 (second and third)."""
    found = corner_weights([[1, 0], [0, 1], [0.5, 0.75]])
    np.testing.assert_allclose(found, [[0, 1], [1 / 3, 2 / 3], [0.6, 0.4], [1, 0]], atol=1e-9)
    with_dominated = corner_weights([[1, 0], [0, 1], [0.5, 0.75], [0.4, 0.4], [0.5, 0.75]])
    np.testing.assert_allclose(with_dominated, found, atol=1e-9)


@pytest.mark.parametrize("objectives", [1, 2, 3, 4, 5])
def test_one_policy_has_the_corners_of_the_simplex(objectives: int) -> None:
    found = corner_weights([[0.3] * objectives])
    assert sorted(found.tolist()) == sorted(np.eye(objectives).tolist())


@pytest.mark.parametrize("objectives", [3, 4])
def test_unit_policies_meet_in_the_centre_and_on_the_middles_of_faces(objectives: int) -> None:
    """Of the highest entry of w the kinks are where two or more entries are equal and highest."""
    found = {tuple(row) for row in corner_weights(np.eye(objectives)).round(6)}
    wanted = {
        tuple(np.isin(range(objectives), chosen) / size)
        for size in range(1, objectives + 1)
        for chosen in itertools.combinations(range(objectives), size)
    }
    assert found == {tuple(np.round(row, 6)) for row in wanted}


def test_two_ways_to_find_corners_of_two_objectives_agree() -> None:
    from paretune.pareto.linear_support import _vertices

    draws = np.random.default_rng(0)
    for _ in range(30):
        points = draws.random((9, 2))
        one, other = corner_weights(points), np.unique(_vertices(points).round(6), axis=0)
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_nowhere_is_more_to_be_gained_than_the_certificate_says(objectives: int) -> None:
    draws = np.random.default_rng(objectives)
    truth = exact_set(objectives, draws)
    weights = np.vstack([np.eye(objectives), draws.dirichlet(np.ones(objectives), 3)])
    known = truth[(weights @ truth.T).argmax(axis=1)]
    found = possible_gains(known, weights, np.zeros(len(weights)))
    assert (np.diff(found.gains) <= 1e-9).all()
    for row in draws.dirichlet(np.ones(objectives), 300):
        assert (truth @ row).max() - (known @ row).max() <= found.certificate + 1e-9


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_following_the_largest_gain_finds_the_whole_coverage_set(objectives: int) -> None:
    """Each round either finds a policy that was not known, or shows that nothing is to be had at that corner."""
    truth = exact_set(objectives, np.random.default_rng(10 + objectives))
    weights, known = np.eye(objectives), truth[truth.argmax(axis=0)]
    for _ in range(200):
        found = possible_gains(known, weights, np.zeros(len(weights)))
        if found.certificate < 1e-9:
            break
        weights = np.vstack([weights, found.corners[0]])
        known = np.vstack([known, truth[(truth @ found.corners[0]).argmax()]])
    assert found.certificate < 1e-9
    everywhere = np.random.default_rng(0).dirichlet(np.ones(objectives), 500)
    np.testing.assert_allclose((everywhere @ known.T).max(axis=1), (everywhere @ truth.T).max(axis=1), atol=1e-9)


def test_slack_raises_the_gain_by_as_much_as_it_may() -> None:
    """Bounds 1 + .1 on both: at the middle (1.1 + 1.1) / 2 - .5 = .6, at a corner .1."""
    found = possible_gains(np.eye(2), np.eye(2), [0.1, 0.1])
    np.testing.assert_allclose(found.gains, [0.6, 0.1, 0.1])
    assert found.corners[0].tolist() == [0.5, 0.5]


def test_a_policy_below_what_was_known_at_its_weights_lowers_no_bound() -> None:
    """A bad run for the middle: the ends are worth .5 there, and that is what is known to be had."""
    found = possible_gains([[1, 0], [0, 1], [0.2, 0.2]], [[1, 0], [0, 1], [0.5, 0.5]], np.zeros(3))
    assert found.certificate == pytest.approx(0, abs=1e-9)


def test_a_bound_that_cannot_be_found_is_said() -> None:
    """Nothing is below -1e30, which the solver takes for minus infinity."""
    with pytest.raises(NonFiniteError, match="a linear program over scores must have a solution, got none: "):
        possible_gains(np.eye(2), np.eye(2), [-1e30, -1e30])


def test_what_bounds_nothing_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="objective_weights must hold every corner of the simplex, got none for objective 1"
    ):
        possible_gains([[1, 0]], [[1, 0], [0.5, 0.5]], [0, 0])
    with pytest.raises(
        ShapeError, match=r"slack must have one entry per row of objective_weights \(2\), got shape \[1\]"
    ):
        possible_gains([[1, 0]], [[1, 0], [0, 1]], [0])
    with pytest.raises(NonFiniteError, match=r"slack must be finite, got \[0\.0, nan\]"):
        possible_gains([[1, 0]], [[1, 0], [0, 1]], [0, np.nan])
    with pytest.raises(PreferenceError, match="non-negative"):
        possible_gains([[1, 0]], [[1, 0], [0, -2]], [0, 0])
    with pytest.raises(NonFiniteError, match="scores must be finite"):
        corner_weights([[np.nan, 1]])
