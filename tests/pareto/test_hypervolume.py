import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paretune.core.errors import NonFiniteError, ShapeError
from paretune.pareto.front import front
from paretune.pareto.hypervolume import hypervolume

points = st.integers(1, 3).flatmap(
    lambda count: st.lists(st.lists(st.floats(-1, 2), min_size=count, max_size=count), min_size=1, max_size=6)
)


def by_inclusion_and_exclusion(scores, corner):
    """Sum over all subsets of (-1)^(size + 1) times the volume of the intersection of their boxes."""
    sides = np.maximum(np.array(scores) - corner, 0)
    total = 0.0
    for size in range(1, len(sides) + 1):
        for subset in itertools.combinations(sides, size):
            total -= (-1) ** size * np.min(subset, axis=0).prod()
    return total


def test_union_of_two_boxes():
    # 1 x 3 and 2 x 2 overlap in 1 x 2: 3 + 4 - 2 = 5
    assert hypervolume([[1, 3], [2, 2]], [0, 0]) == 5.0


def test_union_of_two_boxes_in_three_dimensions_above_a_shifted_corner():
    # sides (1, 2, 3) and (2, 1, 1) from (1, 1, 1): 6 + 2 - 1 x 1 x 1 = 7
    assert hypervolume([[2, 3, 4], [3, 2, 2]], [1, 1, 1]) == 7.0


def test_one_objective_is_the_distance_to_the_corner():
    assert hypervolume([[0.5], [0.75], [-1.0]], [0.25]) == 0.5


def test_points_not_above_the_corner_everywhere_add_nothing():
    assert hypervolume([[5, 0], [0, 5], [-1, 9]], [0, 0]) == 0.0
    assert hypervolume([[1, 1], [5, 0], [9, -1]], [0, 0]) == 1.0


def test_nothing_has_no_volume():
    assert hypervolume(np.zeros((0, 2)), [0, 0]) == 0.0


@settings(max_examples=100)
@given(points)
def test_volume_agrees_with_inclusion_and_exclusion(rows):
    corner = np.full(len(rows[0]), 0.125)
    # boxes have sides below 2, at most 63 subsets: rounding stays below 1e-12
    assert hypervolume(rows, corner) == pytest.approx(by_inclusion_and_exclusion(rows, corner), abs=1e-11)


@given(points, st.randoms())
def test_order_duplicates_and_dominated_points_do_not_matter(rows, random):
    corner = np.zeros(len(rows[0]))
    expected = hypervolume(rows, corner)
    doubled = random.sample(rows + rows, 2 * len(rows))
    assert hypervolume(doubled, corner) == pytest.approx(expected, abs=1e-12)
    assert hypervolume(front(rows), corner) == pytest.approx(expected, abs=1e-12)


@given(points)
def test_a_further_point_never_lowers_the_volume(rows):
    corner = np.zeros(len(rows[0]))
    assert hypervolume(rows, corner) >= hypervolume(rows[:-1] or np.zeros((0, len(corner))), corner) - 1e-12


def test_dense_circle_tends_to_its_area():
    # n points on the quarter circle leave a staircase of steps below it: the deficit is at most the sum of the steps'
    # rectangles, n x (dx dy) <= n (pi/2n)^2 = pi^2 / 4n = .0025 at n = 1000; the limit is pi/4.
    angles = np.linspace(0, math.pi / 2, 1000)
    volume = hypervolume(np.column_stack([np.cos(angles), np.sin(angles)]), [0, 0])
    assert math.pi / 4 - 0.0025 < volume < math.pi / 4


def test_dense_sphere_tends_to_its_volume():
    # the limit is pi/6 = .5236; a finite sample of 20,000 directions lies below, by about the mean spacing .01
    directions = np.abs(np.random.default_rng(0).normal(size=(20_000, 3)))
    volume = hypervolume(directions / np.linalg.norm(directions, axis=1, keepdims=True), [0, 0, 0])
    assert math.pi / 6 - 0.02 < volume < math.pi / 6


def test_dense_simplex_tends_to_one_over_k_factorial():
    # lattice of n divisions of f1 + f2 + f3 = 1: of the cubes of side 1/n those with upper corner a + b + c <= n lie in
    # a box, and there are C(n, 3) of them; C(n, 3) / n^3 -> 1/3!
    steps = 60
    lattice = [(i, j, steps - i - j) for i in range(steps + 1) for j in range(steps + 1 - i)]
    assert hypervolume(np.array(lattice) / steps, [0, 0, 0]) == pytest.approx(math.comb(60, 3) / 60**3, rel=1e-9)


def test_dense_bent_front_tends_to_its_area():
    # (t^2, (1 - t)^2), whose inner points no linear weights find: area under (1 - sqrt(x))^2 from 0 to 1 is 1/6. The
    # staircase of n steps lacks at most the sum of dx dy = sum of (2t/n) (2(1 - t)/n) -> 2 / 3n = .0007 at n = 1000.
    t = np.linspace(0, 1, 1001)
    assert 1 / 6 - 0.0007 < hypervolume(np.column_stack([t**2, (1 - t) ** 2]), [0, 0]) < 1 / 6


def test_published_front_of_rewarded_soups():
    # Ramé et al. 2023, news summaries: rewards of 11 interpolations as printed, each scaled by its own range. By
    # columns from the right, each as high as the highest point so far: .618. The straight chord gives (1 + ... + 9) /
    # 100 = .45.
    first = [0.984, 1.109, 1.197, 1.285, 1.394, 1.459, 1.513, 1.569, 1.653, 1.728, 1.781]
    second = [-0.788, -0.785, -0.777, -0.862, -1.082, -1.080, -1.118, -1.212, -1.325, -1.315, -1.526]
    points = np.column_stack([first, second])
    scaled = (points - points.min(axis=0)) / np.ptp(points, axis=0)
    columns = np.diff(scaled[:, 0]) * np.maximum.accumulate(scaled[::-1, 1])[::-1][1:]
    assert hypervolume(scaled, [0, 0]) == pytest.approx(columns.sum(), abs=1e-12)
    assert hypervolume(scaled, [0, 0]) == pytest.approx(0.618, abs=0.0005)
    assert hypervolume(np.linspace([0, 1], [1, 0], 11), [0, 0]) == pytest.approx(0.45)


def test_wrong_shapes_and_values_are_refused():
    with pytest.raises(ShapeError, match=r"one entry per objective \(2\)"):
        hypervolume([[1, 1]], [0, 0, 0])
    with pytest.raises(ShapeError, match="one row a solution"):
        hypervolume([1, 1], [0, 0])
    with pytest.raises(NonFiniteError, match="scores must be finite"):
        hypervolume([[1, float("nan")]], [0, 0])
    with pytest.raises(NonFiniteError, match="reference_point must be finite"):
        hypervolume([[1, 1]], [0, float("-inf")])
