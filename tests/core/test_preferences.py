from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.core.errors import ParetuneError, PreferenceError
from paretune.core.preferences import (
    add_points,
    centre,
    check_preferences,
    corners,
    das_dennis,
    grid_preferences,
    grid_size,
    nearest,
    preference_from_mapping,
    preference_label,
    random_preferences,
    wanted_preferences,
)

NAMES = ("empathy", "brevity", "fluency")


def test_a_grid_of_three_objectives_and_two_divisions_is_corners_then_midpoints() -> None:
    assert das_dennis(3, 2).tolist() == [
        [1, 0, 0], [0, 1, 0], [0, 0, 1],
        [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5],
    ]  # fmt: skip


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
@pytest.mark.parametrize("divisions", [1, 2, 5])
def test_a_grid_holds_every_lattice_point_of_the_simplex_once(objectives: int, divisions: int) -> None:
    grid = das_dennis(objectives, divisions)

    points = math.comb(objectives + divisions - 1, divisions)  # ways to share out the divisions: stars and bars
    assert len(grid) == points == len({tuple(row) for row in grid.tolist()})
    counts = grid * divisions
    np.testing.assert_allclose(counts, counts.round(), atol=1e-12)  # rounding of one division and one product
    np.testing.assert_array_equal(check_preferences(grid, objectives), grid)
    np.testing.assert_array_equal(grid[:objectives], corners(objectives))


@pytest.mark.parametrize(("objectives", "divisions"), [(0, 2), (2, 0)])
def test_a_grid_without_objective_or_division_is_refused(objectives: int, divisions: int) -> None:
    with pytest.raises(PreferenceError, match=f"at least one objective and one division, got {objectives} and"):
        das_dennis(objectives, divisions)


def test_one_preference_is_checked_as_a_matrix_of_one_row() -> None:
    assert check_preferences([0.7, 0.3], 2).tolist() == [[0.7, 0.3]]


def test_a_preference_typed_with_six_decimals_sums_closely_enough() -> None:
    assert check_preferences([0.333333] * 3, 3).tolist() == [[0.333333] * 3]  # left as it is, to the last bit


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([1, 1, 2], [0.25, 0.25, 0.5]),
        ([0.7, 0.0, 0.7], [0.5, 0.0, 0.5]),
        ([0.2, 0.1, 0.1], [0.5, 0.25, 0.25]),
        ([1e308, 1e308, 0], [0.5, 0.5, 0.0]),  # their sum is infinite
        ([5e-324, 0, 0], [1.0, 0.0, 0.0]),
    ],
)
def test_ratios_are_divided_by_their_sum(row: list[float], expected: list[float]) -> None:
    # the largest first: 0.2, 0.1, 0.1 over 0.2 is 1, .5, .5, and that over 2 is .5, .25, .25, all exact in binary
    rows = check_preferences([row, [0.2, 0.3, 0.5]], 3)
    assert rows.tolist() == [expected, [0.2, 0.3, 0.5]]


@given(st.lists(st.floats(0, 1e6), min_size=3, max_size=3).filter(lambda row: max(row) > 1e-3))
def test_a_preference_is_the_same_however_it_is_scaled(row: list[float]) -> None:
    given_row = np.asarray(row)
    scaled = check_preferences(given_row * 1024 / given_row.sum(), 3)  # far from sum 1, whatever was drawn
    assert abs(scaled.sum() - 1) < 1e-12
    np.testing.assert_allclose(scaled[0], given_row / given_row.sum(), rtol=1e-12, atol=0)


def test_what_is_given_is_not_changed() -> None:
    ratios = np.asarray([[3.0, 1.0]])
    assert check_preferences(ratios, 2).tolist() == [[0.75, 0.25]]
    assert ratios.tolist() == [[3.0, 1.0]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0.0, 0.0], r"must have a weight above 0, got \[0.0, 0.0\]. Give some objective a weight\."),
        ([1.5, -0.5], r"must be finite and non-negative, got \[1.5, -0.5\]"),
        ([np.nan, 1.0], r"must be finite and non-negative, got \[nan, 1.0\]"),
        ([np.inf, 0.0], r"got \[inf, 0.0\]"),
        ([1.0], r"one entry per objective \(2\), got shape \[1, 1\]"),
        ([[[1.0, 0.0]]], r"got shape \[1, 1, 2\]"),
    ],
)
def test_what_cannot_be_put_on_the_simplex_is_refused(row: list[float], message: str) -> None:
    with pytest.raises(PreferenceError, match=message):
        check_preferences(row, 2)


def test_objectives_left_out_of_a_mapping_count_zero() -> None:
    assert preference_from_mapping({"fluency": 0.3, "empathy": 0.7}, NAMES).tolist() == [0.7, 0.0, 0.3]


def test_an_unknown_name_in_a_mapping_is_refused_with_the_closest_known_one() -> None:
    with pytest.raises(PreferenceError, match=r"empathy, brevity, fluency.*got 'brevty'. Did you mean 'brevity'"):
        preference_from_mapping({"brevty": 1.0}, NAMES)


def test_a_mapping_of_ratios_is_divided_by_its_sum() -> None:
    assert preference_from_mapping({"empathy": 1, "fluency": 3}, NAMES).tolist() == [0.25, 0.0, 0.75]


def test_preferences_are_named_by_lists_and_mappings_alike() -> None:
    mixed = wanted_preferences([[1, 1, 2], {"brevity": 3}, [0.2, 0.3, 0.5]], NAMES)
    assert mixed.tolist() == [[0.25, 0.25, 0.5], [0.0, 1.0, 0.0], [0.2, 0.3, 0.5]]
    assert wanted_preferences({"brevity": 3}, NAMES).tolist() == [[0.0, 1.0, 0.0]]
    assert wanted_preferences([2, 1, 1], NAMES).tolist() == [[0.5, 0.25, 0.25]]


@pytest.mark.parametrize("twice", [[[1, 1, 0], [0.5, 0.5, 0]], [{"empathy": 1, "brevity": 1}, [2, 2, 0]]])
def test_a_preference_named_twice_is_refused(twice: list[Any]) -> None:
    with pytest.raises(PreferenceError, match=r"named once, got empathy \.50, brevity \.50 twice\. Remove one\."):
        wanted_preferences([[1, 0, 0], *twice], NAMES)


@pytest.mark.parametrize(("objectives", "divisions", "extra"), [(2, 4, 0), (2, 3, 1), (3, 2, 1), (3, 3, 0), (1, 3, 0)])
def test_a_grid_has_the_centre_once(objectives: int, divisions: int, extra: int) -> None:
    grid, lattice = grid_preferences(objectives, divisions), das_dennis(objectives, divisions)
    assert len(grid) == len(lattice) + extra == grid_size(objectives, divisions)
    np.testing.assert_array_equal(grid[: len(lattice)], lattice)
    assert (np.abs(grid - centre(objectives)).max(axis=1) < 1e-12).sum() == 1


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ([0.7, 0.3, 0.0], "empathy .70, brevity .30"),
        ([0.0, 1.0, 0.0], "brevity"),
        ([0.999, 0.001, 0.0], "empathy 1.00, brevity .00"),
    ],
)
def test_a_label_names_the_objectives_that_count(row: list[float], label: str) -> None:
    assert preference_label(row, NAMES) == label


def test_a_label_leaves_a_zero_inside_a_name_alone() -> None:
    assert preference_label([0.5, 0.5], ("v0.1", "brevity")) == "v0.1 .50, brevity .50"


def test_points_that_are_there_already_are_not_added_again() -> None:
    grid = add_points(das_dennis(3, 1), centre(3))
    assert len(grid) == 4
    assert len(add_points(grid, np.asarray([[1 / 3, 1 / 3, 1 / 3 + 1e-12], [0.5, 0.5, 0]]))) == 5


@given(objectives=st.integers(1, 6), seed=st.integers(0, 10**6))
def test_random_preferences_print_exactly_and_sum_to_one(objectives: int, seed: int) -> None:
    points = random_preferences(objectives, 20, np.random.default_rng(seed))

    assert points.shape == (20, objectives)
    assert (points >= 0).all()
    assert (points == points.round(4)).all()
    np.testing.assert_allclose(points.sum(axis=1), 1, atol=1e-12)  # sums of at most six decimals
    check_preferences(points, objectives)


def test_random_preferences_are_uniform_on_the_simplex() -> None:
    points = random_preferences(3, 4000, np.random.default_rng(0))
    # uniform on the simplex: each entry has mean 1/3 and P(x > 1/2) = 1/4; four standard errors of 4,000 draws
    np.testing.assert_allclose(points.mean(axis=0), 1 / 3, atol=4 * np.sqrt(1 / 18 / 4000))
    np.testing.assert_allclose((points > 0.5).mean(axis=0), 0.25, atol=4 * np.sqrt(3 / 16 / 4000))


def test_the_nearest_point_is_found_and_the_first_wins_a_tie() -> None:
    points = np.asarray([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    targets = np.asarray([[0.9, 0.1], [0.7, 0.3], [0.75, 0.25], [0.25, 0.75]])
    assert nearest(points, targets).tolist() == [0, 2, 0, 1]


def test_ties_do_not_depend_on_the_last_bit() -> None:
    target = np.asarray([[0.5, 0.5]])
    for first, second in itertools.permutations([[0.8, 0.2], [0.2, 0.8]]):
        assert nearest(np.asarray([first, second]), target).tolist() == [0]


def test_a_preference_error_is_a_value_error_of_this_library() -> None:
    assert issubclass(PreferenceError, ValueError)
    assert issubclass(PreferenceError, ParetuneError)


@pytest.mark.parametrize(
    "preference",
    [
        "dog",
        b"dog",
        None,
        {"a": 1.0},
        ["0.5", "0.5"],
        [True, False],
        [[1.0, 0.0], [1.0]],
        [None, 1.0],
        [1j, 0],
        object(),
    ],
)
def test_a_preference_that_is_no_numbers_is_refused(preference: object) -> None:
    with pytest.raises(PreferenceError, match="preference must be numbers, one for each objective, got "):
        check_preferences(preference, 2)  # type: ignore[arg-type]


def test_no_preference_at_all_is_refused() -> None:
    with pytest.raises(PreferenceError, match=r"got shape \[0, 2\]"):
        check_preferences(np.zeros((0, 2)), 2)


@pytest.mark.parametrize("weight", ["1", None, True, [1.0]])
def test_a_named_weight_that_is_no_number_is_refused(weight: object) -> None:
    with pytest.raises(PreferenceError, match=r"preference must be a number for each objective, got .* for 'brevity'"):
        preference_from_mapping({"brevity": weight}, NAMES)  # type: ignore[dict-item]


@pytest.mark.parametrize(("objectives", "divisions"), [(2, 10**9), (6, 60), (3, 500)])
def test_a_lattice_of_more_points_than_could_be_of_use_is_refused_before_it_is_listed(
    objectives: int, divisions: int
) -> None:
    with pytest.raises(PreferenceError, match="a grid must have at most 100,000 points, got"):
        das_dennis(objectives, divisions)
