from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.core.errors import BudgetError, ConfigError, ShapeError
from paretune.core.preferences import FloatArray, corners, das_dennis
from paretune.methods.hierarchical_grid import MOST_DIMENSIONS, Found, HierarchicalGrid, Space, hierarchical_search


def cube(experts: int, objectives: int = 2) -> Space:
    utilities = np.full((1, objectives), 1 / objectives)
    return Space(experts, utilities, simplex=False, first_candidates=np.zeros((0, experts)))


def simplex(candidates: FloatArray) -> Space:
    return Space(candidates.shape[1], candidates, simplex=True, first_candidates=candidates)


def counted(function: object) -> tuple[list[tuple[FloatArray, int]], object]:
    calls: list[tuple[FloatArray, int]] = []

    def measure(candidates: FloatArray, times: int) -> FloatArray:
        calls.append((candidates, times))
        return np.asarray([function(row) for row in candidates])  # type: ignore[operator]

    return calls, measure


def test_a_grid_has_three_points_an_axis_and_halves_towards_the_best_corners() -> None:
    grid = HierarchicalGrid(2)
    points = grid.points()
    assert points.shape == (9, 2)
    assert points[:4].tolist() == [[0, 0], [0, 0.5], [0, 1], [0.5, 0]]
    grid.narrow(points @ [1.0, -1.0])  # highest at (1, 0)
    assert (grid.low.tolist(), grid.side) == ([0.5, 0], 0.5)
    assert grid.points()[[0, -1]].tolist() == [[0.5, 0], [1, 0.5]]
    grid.narrow(np.zeros(9))  # all equal: the first
    assert (grid.low.tolist(), grid.side) == ([0.5, 0], 0.25)


def test_a_part_is_judged_by_the_sum_of_its_corners_not_by_its_best_point() -> None:
    grid = HierarchicalGrid(1)
    grid.narrow(np.asarray([10.0, 0.0, 11.0]) - np.asarray([0, 0, 2.0]))  # sums 10 and 9
    assert grid.low.tolist() == [0]


@pytest.mark.parametrize(("dimensions", "distinct"), [(3, 103), (4, 341), (5, 1087)])  # of 135, 405, 1215 looked at
def test_five_rounds_measure_what_published_searches_would_with_a_memory(dimensions: int, distinct: int) -> None:
    space = cube(dimensions)
    assert space.most(5) == distinct
    calls, measure = counted(lambda row: [row.sum(), -row[0]])
    found = hierarchical_search(space, 5, distinct, measure)  # type: ignore[arg-type]
    assert [len(candidates) for candidates, _ in calls] == [3**dimensions] + [3**dimensions - 2**dimensions] * 4
    assert len(found.candidates) == distinct == len({tuple(row) for row in found.candidates.tolist()})
    assert {times for _, times in calls} == {0}


def test_a_peak_inside_the_cube_is_found_to_the_last_step() -> None:
    """The published search ends with steps of 1/32; along each axis the better half holds the peak."""
    peak = np.asarray([0.78125, 0.5, 0.0625])  # the published default weights
    space = cube(3, 1)
    _, measure = counted(lambda row: [-np.abs(row - peak).sum()])
    found = hierarchical_search(space, 5, space.most(5), measure)  # type: ignore[arg-type]
    assert found.best(np.ones(1)).tolist() == peak.tolist()


def test_weights_on_the_simplex_are_shares_of_what_is_left() -> None:
    space = simplex(corners(3))
    points = np.asarray([[0.5, 0.5], [0.0, 1.0], [1.0, 0.3], [0.0, 0.0]])
    assert space.weights(points).tolist() == [[0.5, 0.25, 0.25], [0, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert (space.dimensions, cube(3).dimensions) == (2, 3)


@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_candidates_on_the_simplex_stay_there(experts: int, seed: int) -> None:
    space = simplex(corners(experts))
    weights = space.weights(np.random.default_rng(seed).random((20, experts - 1)))
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)


def test_every_preference_is_searched_and_what_several_ask_for_is_measured_once() -> None:
    """Scores `1 - (g_k - c_k)^2` have their best g between the objectives' own: each preference finds it to 1/32."""
    preferences = das_dennis(2, 4)
    space = simplex(preferences)
    first = [[0, 1], [0.5, 0.5], [1, 0], [0.75, 0.25], [0.25, 0.75]]
    assert sorted(space.first().tolist()) == sorted(first)
    assert space.most(1) == 5
    assert space.most(4) == 5 + 3 * 5  # one new point a preference and round
    calls, measure = counted(lambda row: [1 - (row[0] - 0.9) ** 2, 1 - (row[0] - 0.3) ** 2])
    found = hierarchical_search(space, 5, space.most(5), measure)  # type: ignore[arg-type]
    measured = [tuple(row) for candidates, times in calls if not times for row in candidates.tolist()]
    assert len(measured) == len(set(measured)) == len(found.candidates) < space.most(5)
    for preference in preferences:
        best = preference @ [0.9, 0.3]  # where the derivative of the weighed sum is 0
        assert found.best(preference)[0] == pytest.approx(best, abs=1 / 32)
    assert sum(len(candidates) for candidates, _ in calls) == space.most(5)  # the rest measured winners again


def test_winners_are_measured_again_with_other_noise_until_the_means_settle() -> None:
    """A candidate that was lucky once loses its place."""
    space = simplex(np.asarray([[1.0]] * 1))
    calls, measure = counted(lambda row: [float(row.sum())])
    hierarchical_search(space, 3, 4, measure)  # type: ignore[arg-type]
    assert [(candidates.tolist(), times) for candidates, times in calls] == [([[1]], each) for each in range(4)]

    def lucky(candidates: FloatArray, times: int) -> FloatArray:
        bonus = candidates[:, 0] == 0.5
        return np.stack([candidates[:, 0], candidates[:, 0]], axis=1) + np.where(bonus & (times == 0), 1.0, 0)[:, None]

    grid = simplex(np.asarray([[0.5, 0.5]]))
    assert hierarchical_search(grid, 1, 3, lucky).best(np.full(2, 0.5)).tolist() == [0.5, 0.5]
    settled = hierarchical_search(grid, 1, 5, lucky)
    assert settled.best(np.full(2, 0.5)).tolist() == [1, 0]
    lucky_scores = settled.scores[settled.candidates[:, 0] == 0.5]
    np.testing.assert_allclose(lucky_scores, [[0.5 + 1 / 3] * 2], rtol=1e-12)  # the mean of three


@pytest.mark.parametrize("space", [cube(3), simplex(das_dennis(2, 2))], ids=["published", "preferences"])
def test_without_a_memory_the_same_is_found_for_as_many_measurements_as_are_published(space: Space) -> None:
    generator = np.random.default_rng(0)
    peaks = generator.random((2, space.experts))
    calls, measure = counted(lambda row: [-np.abs(row - peak).sum() for peak in peaks])
    known = hierarchical_search(space, 5, space.most(5), measure)  # type: ignore[arg-type]
    with_memory = len(calls)
    forgot = hierarchical_search(space, 5, space.most(5), measure, memo=False)  # type: ignore[arg-type]
    assert forgot.candidates.tolist() == known.candidates.tolist()
    assert (forgot.scores.tolist(), forgot.times) == (known.scores.tolist(), known.times)
    rounds = [len(candidates) for candidates, times in calls[with_memory:] if not times]
    assert sum(rounds) == space.repeated(5)  # 135 of three experts, as published; three a preference and round, and 3
    assert space.repeated(5) == (135 if space.experts == 3 else 5 * 3 * 3 + 3)


def test_an_enlarged_simplex_has_its_corners_further_from_the_centre() -> None:
    space = Space(2, corners(2), True, corners(2), beyond=0.5)
    assert space.weights(np.asarray([[0.0], [0.5], [1.0]])).tolist() == [[-0.25, 1.25], [0.5, 0.5], [1.25, -0.25]]
    assert simplex(corners(2)).weights(np.asarray([[0.25]])).tolist() == [[0.25, 0.75]]


def test_a_round_that_cannot_be_paid_is_not_begun() -> None:
    space = cube(2)
    calls, measure = counted(lambda row: [row[0], row[1]])
    hierarchical_search(space, 5, 12, measure)  # type: ignore[arg-type]
    assert [(len(candidates), times) for candidates, times in calls] == [(9, 0), (1, 1), (1, 2), (1, 3)]
    with pytest.raises(ShapeError, match=r"at least those of the first round \(9\), got 8. Plan more"):
        hierarchical_search(space, 5, 8, measure)  # type: ignore[arg-type]


def test_what_was_found_is_averaged() -> None:
    found = Found()
    found.add(np.asarray([[0.0, 1.0], [1.0, 0.0]]), np.asarray([[1.0, 0.0], [0.0, 4.0]]))
    found.add(np.asarray([[-0.0, 1.0]]), np.asarray([[3.0, 2.0]]))
    assert found.candidates.tolist() == [[0, 1], [1, 0]]
    assert found.scores.tolist() == [[2, 1], [0, 4]]
    assert found.of(np.asarray([[1.0, 0.0]])).tolist() == [[0, 4]]
    assert found.best(np.asarray([0.75, 0.25])).tolist() == [0, 1]


def test_a_grid_of_too_many_experts_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a simplex one dimension more than `MOST_DIMENSIONS` has experts."""
    most = simplex(np.eye(MOST_DIMENSIONS + 1))
    with pytest.raises(BudgetError, match=r"each of 2047 mixtures with, got 1500"):  # 2 (2 (...) + 1) + 1 = 2^11 - 1
        most.affordable(5, 32, 1500, 64)
    assert most.affordable(1, 32, 2047, 64) == (1, 2047, 1)
    monkeypatch.delattr(HierarchicalGrid, "points")
    with pytest.raises(
        ConfigError, match=r"experts of a grid search must be at most 11, got 13: three .* are 3\^12 in all"
    ):
        simplex(np.eye(13)).affordable(5, 32, 1500, 64)
    with pytest.raises(
        ConfigError, match=r"experts of a grid search must be at most 10, got 11: three .* are 3\^11 in all"
    ):
        cube(11).affordable(5, 32, 10**9, 64)
